//! Putting a live socket at its public name, so that clients never find the name missing.
//!
//! | what lies at the public name | call | what it rules out |
//! | --- | --- | --- |
//! | this very socket | none: rename(2) of one link over another does nothing and leaves both | a temporary name left over |
//! | nothing | `linkat(private → temporary)`, `renameat2(temporary → public, RENAME_NOREPLACE)` | the loss of what came there just now |
//! | a socket that may be replaced | the same link, `renameat2(RENAME_EXCHANGE)`, a look at what came out | a moment without a name; the loss of anything else |
//! | a socket that may not | none | a live stranger's loss |
//! | no socket | none | a file's loss |
//!
//! The private name stays: it is the socket's second link. A crash leaves at most a temporary name, which bears the prefix
//! that [`sweep`](super::clean::sweep) removes once nobody listens on it.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, open, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::clean;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// The public name leads to the socket now.
    Put,
    /// It did already.
    WasThere,
}

/// Why a socket is not at its public name. What lay there lies there still.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Nothing, or no socket, lies at the private path.
    #[error("{}: the socket is not there: the program must leave the path that it was given alone", private.display())]
    NoSocket {
        /// The instance's own path.
        private: PathBuf,
    },
    /// Something that is no socket lies at the public path.
    #[error("{}: what lies here is no socket, and is left alone; move it away, or declare another path", public.display())]
    NotASocket {
        /// The public path.
        public: PathBuf,
    },
    /// Somebody else listens at the public path.
    #[error("{}: foreign: {who}; stop it, or end it with proc restart --clean (or kill_other)", public.display())]
    Foreign {
        /// The public path.
        public: PathBuf,
        /// Who, in words.
        who: String,
    },
    /// Something else came to lie there at the same moment, and was left, or put back.
    #[error("{}: something else took this place at the same moment; find out who else uses the path", public.display())]
    Swapped {
        /// The public path.
        public: PathBuf,
    },
    /// The system said no.
    #[error("{}: cannot {step}: {}", public.display(), errno.desc())]
    Refused {
        /// The public path.
        public: PathBuf,
        /// The step, in words.
        step: &'static str,
        /// Why.
        errno: Errno,
    },
}

/// Puts the socket that lies at `private` at `public`, in the same folder. `stranger` is asked whether a process that is to stay
/// listens on the socket at the public name, and who.
///
/// # Errors
/// [`PublishError`]; the public name is as it was.
pub fn publish(
    private: &Path,
    public: &Path,
    stranger: &mut dyn FnMut() -> Option<String>,
) -> Result<Published, PublishError> {
    let refused = |step, errno| PublishError::Refused { public: public.to_owned(), step, errno };
    let (Some(parent), Some(own), Some(name)) = (public.parent(), private.file_name(), public.file_name())
    else {
        return Err(refused("find its folder", Errno::EINVAL));
    };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let folder = open(parent, flags, Mode::empty()).map_err(|e| refused("open its folder", e))?;
    let socket = look(&folder, own).map_err(|e| refused("look at the private path", e))?;
    let Some(socket) = socket.filter(is_socket) else {
        return Err(PublishError::NoSocket { private: private.to_owned() });
    };
    let there = look(&folder, name).map_err(|e| refused("look at it", e))?;
    match &there {
        Some(there) if inode(there) == inode(&socket) => return Ok(Published::WasThere),
        Some(there) if !is_socket(there) => {
            return Err(PublishError::NotASocket { public: public.to_owned() });
        }
        Some(_) => {
            if let Some(who) = stranger() {
                return Err(PublishError::Foreign { public: public.to_owned(), who });
            }
        }
        None => {}
    }
    let aside = clean::private_name().map_err(|e| refused("draw a random name", e))?;
    let aside = aside.as_os_str();
    linkat(&folder, own, &folder, aside, AtFlags::empty()).map_err(|e| refused("link it", e))?;
    let forget = || {
        let _ = unlinkat(&folder, aside, UnlinkatFlags::NoRemoveDir);
    };
    let how = if there.is_some() { RenameFlags::RENAME_EXCHANGE } else { RenameFlags::RENAME_NOREPLACE };
    let put = renameat2(&folder, aside, &folder, name, how);
    match (put, there) {
        (Ok(()), None) => Ok(Published::Put),
        (Ok(()), Some(there)) => {
            let out = look(&folder, aside).ok().flatten();
            if out.as_ref().is_none_or(|out| inode(out) == inode(&there)) {
                forget();
                return Ok(Published::Put);
            }
            // What came there since the look goes back.
            let _ = renameat2(&folder, aside, &folder, name, RenameFlags::RENAME_EXCHANGE);
            if look(&folder, aside).ok().flatten().is_some_and(|back| inode(&back) == inode(&socket)) {
                forget();
            }
            Err(PublishError::Swapped { public: public.to_owned() })
        }
        (Err(errno), _) => {
            forget();
            Err(match errno {
                Errno::EEXIST | Errno::ENOENT => PublishError::Swapped { public: public.to_owned() },
                errno => refused("put it there", errno),
            })
        }
    }
}

/// What lies under a name; `None` for nothing.
fn look(folder: &OwnedFd, name: &OsStr) -> Result<Option<FileStat>, Errno> {
    match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn inode(stat: &FileStat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn is_socket(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    struct Place {
        folder: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Place {
            Place { folder: tempfile::tempdir().unwrap() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn publish(&self, private: &str, foreign: bool) -> Result<Published, PublishError> {
            let mut who = || foreign.then(|| "process 7 listens".to_owned());
            publish(&self.path(private), &self.path("s"), &mut who)
        }

        /// The public name and these, and no other.
        fn holds(&self, names: &[&str]) {
            let list = fs::read_dir(self.folder.path()).unwrap().flatten();
            let mut found: Vec<String> = list.map(|e| e.file_name().into_string().unwrap()).collect();
            found.sort();
            assert_eq!(found, names);
        }

        fn ino(&self, name: &str) -> u64 {
            fs::symlink_metadata(self.path(name)).unwrap().ino()
        }
    }

    #[test]
    fn the_public_name_moves_from_generation_to_generation_and_nothing_is_left_over() {
        let place = Place::new();
        let _first = UnixListener::bind(place.path(".s.1")).unwrap();
        assert_eq!(place.publish(".s.1", false), Ok(Published::Put));
        assert_eq!(place.publish(".s.1", false), Ok(Published::WasThere));
        place.holds(&[".s.1", "s"]);
        let second = UnixListener::bind(place.path(".s.2")).unwrap();
        assert_eq!(place.publish(".s.2", false), Ok(Published::Put));
        place.holds(&[".s.1", ".s.2", "s"]);
        assert_eq!(place.ino("s"), place.ino(".s.2"));
        // The late unlink of the first hits its own name.
        fs::remove_file(place.path(".s.1")).unwrap();
        let _client = UnixStream::connect(place.path("s")).unwrap();
        second.accept().unwrap();
    }

    #[test]
    fn what_is_not_to_be_replaced_stays() {
        let place = Place::new();
        let _new = UnixListener::bind(place.path(".s.1")).unwrap();
        fs::write(place.path("s"), "kept").unwrap();
        assert!(matches!(place.publish(".s.1", false), Err(PublishError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(place.path("s")).unwrap(), "kept");
        fs::remove_file(place.path("s")).unwrap();
        std::os::unix::fs::symlink(".s.1", place.path("s")).unwrap();
        assert!(matches!(place.publish(".s.1", false), Err(PublishError::NotASocket { .. })));
        fs::remove_file(place.path("s")).unwrap();
        let _stranger = UnixListener::bind(place.path("s")).unwrap();
        let there = place.ino("s");
        assert!(matches!(place.publish(".s.1", true), Err(PublishError::Foreign { .. })));
        assert_eq!(place.ino("s"), there);
        place.holds(&[".s.1", "s"]);
        assert!(matches!(place.publish(".s.2", false), Err(PublishError::NoSocket { .. })));
    }

    #[test]
    fn no_connect_fails_while_the_name_moves() {
        let place = Place::new();
        let listeners: Vec<UnixListener> =
            (0..2).map(|i| UnixListener::bind(place.path(&format!(".s.{i}"))).unwrap()).collect();
        place.publish(".s.0", false).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for listener in &listeners {
                // They end with the listeners' shutdown below.
                scope.spawn(move || while listener.accept().is_ok() {});
            }
            let client = scope.spawn(|| {
                let mut asked = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    UnixStream::connect(place.path("s")).unwrap();
                    asked += 1;
                }
                asked
            });
            for i in 0..2000 {
                place.publish([".s.1", ".s.0"][i % 2], false).unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(client.join().unwrap() > 0);
            for listener in &listeners {
                nix::sys::socket::shutdown(
                    std::os::fd::AsRawFd::as_raw_fd(listener),
                    nix::sys::socket::Shutdown::Both,
                )
                .unwrap();
            }
        });
        place.holds(&[".s.0", ".s.1", "s"]);
    }
}
