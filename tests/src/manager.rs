//! A service manager that keeps a descriptor for its unit, as systemd does with `FileDescriptorStoreMax=`: it is given
//! one by sd_notify(3), and hands it to the unit's next process by sd_listen_fds(3).
#![allow(unsafe_code)] // descriptors that came with a message become owned

use crate::fault::Context;
use crate::{Result, World};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The manager of one unit.
pub struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    /// What it keeps, by name.
    pub kept: Vec<(String, OwnedFd)>,
}

impl Manager {
    /// Listens for its unit.
    pub fn new(world: &World) -> Result<Manager> {
        let path = world.file("manager");
        let socket = UnixDatagram::bind(&path).context(path.display())?;
        socket.set_nonblocking(true)?;
        Ok(Manager { socket, path, kept: Vec::new() })
    }

    /// Takes what the unit has said so far.
    pub fn listen(&mut self) -> Result {
        loop {
            let mut text = [0; 4096];
            let mut control = nix::cmsg_space!([RawFd; 16]);
            let mut parts = [IoSliceMut::new(&mut text)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let (count, fds) =
                match recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
                    Err(Errno::EAGAIN) => return Ok(()),
                    got => {
                        let got = got?;
                        let mut fds = Vec::new();
                        for part in got.cmsgs()? {
                            if let ControlMessageOwned::ScmRights(given) = part {
                                // SAFETY: the kernel has just put these into our table; nobody else owns them.
                                fds.extend(given.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                            }
                        }
                        (got.bytes, fds)
                    }
                };
            let said = String::from_utf8_lossy(text.get(..count).unwrap_or_default()).into_owned();
            let name = said.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default();
            if said.contains("FDSTOREREMOVE=1") {
                self.kept.retain(|(kept, _)| kept != name);
            } else if said.contains("FDSTORE=1") {
                self.kept.extend(fds.into_iter().map(|fd| (name.to_owned(), fd)));
            }
        }
    }

    /// The command that starts the daemon, with the first descriptor that is kept.
    pub fn daemon(&self, world: &World) -> Result<Command> {
        let mut command = world.command("/bin/sh");
        command.env("NOTIFY_SOCKET", &self.path).stdin(Stdio::null());
        let mut script = "exec \"$0\" run".to_owned();
        if let Some((name, fd)) = self.kept.first() {
            script = format!("LISTEN_PID=$$ {script} 3<&0 </dev/null");
            command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name).stdin(fd.try_clone()?);
        }
        command.arg("-c").arg(script).arg(world.bin("shimd"));
        Ok(command)
    }
}
