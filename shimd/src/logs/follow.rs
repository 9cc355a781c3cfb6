//! Reading on as services write: a batch when there is one and somebody takes it, else a wait for the next write.
//!
//! Nothing is held for a slow reader but one batch: the rest stays in the files. What they lose meanwhile, since they
//! have a size that they keep to, is told.

use std::path::Path;

use shimd_api::wire::LogLines;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::LogError;
use super::reader::{Batch, Reader};
use super::writes::Writes;

/// Sends what is wanted, until there is nothing more or nobody takes it.
pub(super) async fn read<T: From<LogLines>>(
    mut reader: Reader,
    mut writes: Option<Writes>,
    out: &mpsc::Sender<T>,
) -> Result<(), LogError> {
    loop {
        let (back, batch) = on_a_thread(move || {
            let batch = reader.batch();
            Ok((reader, batch))
        })
        .await?;
        reader = back;
        let Batch { lines, more } = batch?;
        if let Some(lines) = lines
            && out.send(lines.into()).await.is_err()
        {
            return Ok(());
        }
        match &mut writes {
            _ if more => {}
            None => return Ok(()),
            Some(writes) => tokio::select! {
                () = out.closed() => return Ok(()),
                () = writes.wait() => {}
            },
        }
    }
}

/// Does what may wait for a disk.
pub(super) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    let failed = |error| LogError::io(Path::new("logs"), "read a log")(std::io::Error::other(error));
    spawn_blocking(work).await.map_err(failed)?
}
