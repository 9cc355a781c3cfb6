//! The files that a new instance writes its output to. A disk that is read-only, full or failing is no reason to leave
//! clients without their service: then it writes to nowhere, and that is said.

use std::fs::{File, OpenOptions};
use std::sync::Arc;

use nix::errno::Errno;
use shimd_api::spec::Spec;

use super::Supervisor;
use crate::logs::{Limits, LogError};

/// The trouble by which it is said.
const TROUBLE: &str = "output";

impl Supervisor {
    /// Its two files, standard output first.
    pub(super) fn log_files(&mut self, name: &Arc<str>, spec: &Spec) -> Result<(File, File), LogError> {
        // What cannot be made is said by the open.
        let _ = self.make_home();
        match self.logs.open(name, limits(spec)) {
            Err(e) if is_of_disk(&e) => {
                let nowhere = || OpenOptions::new().write(true).open("/dev/null").ok();
                let (Some(out), Some(err)) = (nowhere(), nowhere()) else { return Err(e) };
                tracing::error!(service = %name, "its output is not kept: {e}");
                let said = format!("what {name} writes since its start is not kept: {e}");
                self.troubles.insert(TROUBLE, said);
                Ok((out, err))
            }
            opened => {
                self.troubles.remove(TROUBLE);
                opened
            }
        }
    }
}

/// How much of its output is kept.
pub(super) fn limits(spec: &Spec) -> Limits {
    Limits { max_size: spec.log.max_size, keep: spec.log.keep }
}

fn is_of_disk(error: &LogError) -> bool {
    let LogError::Io { source, .. } = error else { return false };
    let errno = source.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EROFS | Errno::ENOSPC | Errno::EDQUOT | Errno::EIO))
}
