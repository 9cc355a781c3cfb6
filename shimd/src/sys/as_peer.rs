//! Acting for a client with no more rights than the client's own.
//!
//! Who connects is told to a server by SO_PEERCRED and SO_PEERGROUPS (unix(7)), taken from the effective user, group and
//! groups of the thread that calls connect(2). A process of root's that connects for others would let each of them pass
//! for root with every server that asks (D-Bus, PostgreSQL's `peer`, this daemon): so it takes on theirs for the call.
//! The kernel then also asks the permission bits for that user.
#![allow(unsafe_code)] // the C library sets the user of all threads at once; and SO_PEERGROUPS has no wrapper in nix

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc::{c_long, gid_t, uid_t};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{getegid, geteuid, getgroups};

/// "Leave as it is", to setresuid(2) and setresgid(2).
const SAME: u32 = u32::MAX;

/// A user with groups: who connected, or who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    uid: uid_t,
    gid: gid_t,
    groups: Vec<gid_t>,
}

impl Peer {
    /// A user with groups.
    pub fn new(uid: uid_t, gid: gid_t, groups: Vec<gid_t>) -> Peer {
        Peer { uid, gid, groups }
    }

    /// Who has connected to us, as it was when it did.
    ///
    /// # Errors
    /// What getsockopt(2) says.
    pub fn of(connection: &impl AsFd) -> Result<Peer, Errno> {
        let told = getsockopt(connection, PeerCredentials)?;
        Ok(Peer { uid: told.uid(), gid: told.gid(), groups: peer_groups(connection)? })
    }

    fn own() -> Result<Peer, Errno> {
        let groups = getgroups()?.into_iter().map(|gid| gid.as_raw()).collect();
        Ok(Peer { uid: geteuid().as_raw(), gid: getegid().as_raw(), groups })
    }

    /// Does `work` on this thread as this peer. Other threads are not touched.
    ///
    /// # Errors
    /// `EPERM` where this process may not act for it: then nothing was done.
    pub fn act<T>(&self, work: impl FnOnce() -> T) -> Result<T, Errno> {
        if self.uid == SAME || self.gid == SAME {
            return Err(Errno::EINVAL);
        }
        let own = Peer::own()?;
        if *self == own {
            return Ok(work());
        }
        let back = Back(own);
        // The user last: without root the groups could not be set any more.
        set_groups(&self.groups)?;
        set_gid(self.gid)?;
        set_uid(self.uid)?;
        let done = work();
        drop(back);
        Ok(done)
    }
}

/// Who this thread is again when it is dropped.
struct Back(Peer);

impl Drop for Back {
    fn drop(&mut self) {
        let Back(own) = self;
        let back = set_uid(own.uid).and_then(|()| set_gid(own.gid)).and_then(|()| set_groups(&own.groups));
        if back.is_err() {
            // As somebody half another nothing may go on.
            std::process::abort();
        }
    }
}

fn set_uid(uid: uid_t) -> Result<(), Errno> {
    // SAFETY: takes three numbers; of this thread alone the effective user changes.
    done(unsafe { libc::syscall(libc::SYS_setresuid, SAME, uid, SAME) })
}

fn set_gid(gid: gid_t) -> Result<(), Errno> {
    // SAFETY: takes three numbers; of this thread alone the effective group changes.
    done(unsafe { libc::syscall(libc::SYS_setresgid, SAME, gid, SAME) })
}

fn set_groups(groups: &[gid_t]) -> Result<(), Errno> {
    // SAFETY: the kernel reads so many numbers from where they are.
    done(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })
}

fn done(result: c_long) -> Result<(), Errno> {
    Errno::result(result).map(drop)
}

/// SO_PEERGROUPS; it fails with ERANGE and the wanted size where the room is too small.
fn peer_groups(connection: &impl AsFd) -> Result<Vec<gid_t>, Errno> {
    let mut groups: Vec<gid_t> = vec![0; 32];
    loop {
        let mut size = (groups.len() * size_of::<gid_t>()) as libc::socklen_t;
        // SAFETY: the kernel writes at most `size` bytes to the vector, which has as many, and the size itself.
        let result = unsafe {
            libc::getsockopt(
                connection.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut size,
            )
        };
        let wanted = size as usize / size_of::<gid_t>();
        match Errno::result(result) {
            Ok(_) => {
                groups.truncate(wanted);
                return Ok(groups);
            }
            Err(Errno::ERANGE) if wanted > groups.len() => groups.resize(wanted, 0),
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_server_is_told_who_it_is_that_is_acted_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let told = || Peer::of(&listener.accept().unwrap().0).unwrap();
        let plain = UnixStream::connect(&path).unwrap();
        let own = Peer::own().unwrap();
        assert_eq!(told(), own);
        drop(plain);
        let other = Peer { uid: 65534, gid: 65533, groups: (70_000..70_040).collect() };
        if own.uid != 0 {
            assert_eq!(other.act(|| ()), Err(Errno::EPERM));
            return;
        }
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        // Its own permissions count: the socket is root's, 0755.
        let refused = other.act(|| UnixStream::connect(&path)).unwrap().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let stream = other.act(|| UnixStream::connect(&path)).unwrap();
        assert_eq!(told(), other);
        drop(stream);
        assert_eq!(Peer::own().unwrap(), own, "and is itself again");
        assert_eq!(Peer { uid: SAME, ..other }.act(|| ()), Err(Errno::EINVAL));
    }
}
