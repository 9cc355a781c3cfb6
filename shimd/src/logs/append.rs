//! The descriptors that a service writes to.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::{Files, LogError, Stream, if_there};

/// Opens `<service>.out` and `<service>.err` in `logs_dir` for append, made with `0600` where they are
/// missing, as standard output and standard error of a service.
///
/// Append makes each write go to the end, wherever that is by then: several processes may write, and the
/// front may be cut away meanwhile.
///
/// # Errors
/// [`LogError`]; a link or anything else that is no regular file is not written to.
pub fn open_for_append(logs_dir: &Path, service: &str) -> Result<(File, File), LogError> {
    Ok((open(logs_dir, service, Stream::Out)?, open(logs_dir, service, Stream::Err)?))
}

/// Whether nothing but files lies where they are, so that they can be opened or made.
///
/// # Errors
/// [`LogError`]; nothing is opened.
pub fn look(logs_dir: &Path, service: &str) -> Result<(), LogError> {
    [Stream::Out, Stream::Err].into_iter().try_for_each(|stream| place(logs_dir, service, stream).map(drop))
}

fn place(logs_dir: &Path, service: &str, stream: Stream) -> Result<PathBuf, LogError> {
    let path = Files::new(logs_dir, service, stream)?.live;
    let found = if_there(path.symlink_metadata()).map_err(LogError::io(&path, "look at the log"))?;
    match found {
        Some(found) if !found.is_file() => Err(LogError::NotAFile { path }),
        _ => Ok(path),
    }
}

fn open(logs_dir: &Path, service: &str, stream: Stream) -> Result<File, LogError> {
    // Before the open: that of a FIFO would wait for a reader.
    let path = place(logs_dir, service, stream)?;
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(&path)
        .map_err(LogError::io(&path, "open the log"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn both_are_appended_to_and_private() {
        let tmp = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let (mut out, mut err) = open_for_append(tmp.path(), "a.b-c").unwrap();
            out.write_all(b"o").unwrap();
            err.write_all(b"e").unwrap();
        }
        for (name, text) in [("a.b-c.out", "oo"), ("a.b-c.err", "ee")] {
            let path = tmp.path().join(name);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let at = |name: &str| tmp.path().join(name);
        symlink(at("target"), at("link.out")).unwrap();
        fs::create_dir(at("folder.err")).unwrap();
        nix::unistd::mkfifo(&at("fifo.out"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in ["link", "folder", "fifo"] {
            let error = open_for_append(tmp.path(), name).unwrap_err();
            assert!(matches!(error, LogError::NotAFile { .. }), "{error}");
        }
        assert!(!at("target").exists());
        for name in ["", "../x", "a/b", ".hidden", "nul\0"] {
            let error = open_for_append(tmp.path(), name).unwrap_err();
            assert!(matches!(error, LogError::Name { .. }), "{error}");
        }
        let error = open_for_append(&at("none"), "x").unwrap_err();
        assert!(matches!(error, LogError::Io { step: "open the log", .. }), "{error}");
    }
}
