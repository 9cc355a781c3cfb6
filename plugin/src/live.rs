//! Rows that come as they happen: a lazy stream, which Ctrl-C ends, and the going of its reader.

use std::sync::mpsc::sync_channel;

use nu_plugin::EngineInterface;
use nu_protocol::{HandlerGuard, LabeledError};

use crate::plugin::Proc;
use crate::stop::Stop;

/// A source of rows. It ends soon after its [`Stop`] is set, and is not asked again after an error.
pub type Source<T> = Box<dyn Iterator<Item = Result<T, LabeledError>> + Send>;

/// A source, as long as it is wanted.
pub struct Live<T> {
    source: Option<Source<T>>,
    stop: Stop,
    _ctrl_c: HandlerGuard,
}

impl<T> Live<T> {
    /// The source that `open` gives. The answer of the command that runs on this thread is to be this stream.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn open(
        plugin: &Proc,
        engine: &EngineInterface,
        open: impl FnOnce(&Stop) -> Result<Source<T>, LabeledError>,
    ) -> Result<Live<T>, LabeledError> {
        let stop = Stop::default();
        let ctrl_c = stop.at_ctrl_c(engine)?;
        let source = open(&stop)?;
        plugin.readers.announce(&stop);
        Ok(Live { source: Some(source), stop, _ctrl_c: ctrl_c })
    }
}

impl<T> Iterator for Live<T> {
    type Item = Result<T, LabeledError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = if self.stop.is_set() { None } else { self.source.as_mut()?.next() };
        if !matches!(row, Some(Ok(_))) {
            // What it holds, a connection say, is let go of now, not when the stream's last owner goes.
            self.source = None;
            self.stop.set();
        }
        row
    }
}

impl<T> Drop for Live<T> {
    fn drop(&mut self) {
        // Threads of a merged source look at it.
        self.stop.set();
    }
}

/// Several sources as one: rows as they come, until all have ended.
pub fn merge<T: Send + 'static>(mut sources: Vec<Source<T>>) -> Source<T> {
    if sources.len() == 1
        && let Some(only) = sources.pop()
    {
        return only;
    }
    let (sender, rows) = sync_channel(0);
    for source in sources {
        let sender = sender.clone();
        std::thread::spawn(move || {
            for row in source {
                let failed = row.is_err();
                if sender.send(row).is_err() || failed {
                    return;
                }
            }
        });
    }
    Box::new(rows.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_sources_end_with_the_last_of_them() {
        let source = |rows: Vec<u32>| -> Source<u32> { Box::new(rows.into_iter().map(Ok)) };
        let failing: Source<u32> = Box::new(std::iter::repeat_with(|| Err(LabeledError::new("gone"))));
        let mut rows: Vec<Option<u32>> =
            merge(vec![source(vec![1, 2]), source(vec![3]), failing]).map(Result::ok).collect();
        rows.sort_unstable();
        assert_eq!(rows, [None, Some(1), Some(2), Some(3)]);
    }
}
