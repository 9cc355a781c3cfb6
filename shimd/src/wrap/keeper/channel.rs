//! What wrap and its keeper say to each other: one message of eight bytes each, over a pair of sockets.
#![allow(unsafe_code)] // fork, and a descriptor that is registered with tokio

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::super::args::Plan;
use super::super::inherited::Inherited;

/// What wrap asks of its keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Start the service.
    Spawn {
        /// The generation, which names its private paths.
        generation: u32,
    },
    /// Give the main process a signal that wrap got, unless it was sent to all of us.
    Forward {
        /// Its number.
        signal: i32,
    },
    /// Give the main process a signal of wrap's own.
    Signal {
        /// Its number.
        signal: i32,
    },
    /// Signal what is left of the service.
    SignalRest {
        /// Its number.
        signal: i32,
    },
    /// SIGKILL to all, until nothing is left.
    KillAll,
    /// The service says who its main process is from now on.
    Main {
        /// That process.
        pid: i32,
    },
}

/// What the keeper tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The service's program runs in this process; or this one is its main process from now on.
    Spawned {
        /// Its number.
        pid: i32,
    },
    /// The program could not be executed.
    NotSpawned {
        /// Why.
        errno: i32,
    },
    /// The main process has ended.
    Ended {
        /// As wait(2) gives it.
        status: i32,
    },
    /// The main process was stopped.
    Stopped {
        /// By this signal.
        signal: i32,
    },
    /// Nothing of the service is left.
    Empty,
}

impl Order {
    fn pack(self) -> (u32, i32) {
        match self {
            Order::Spawn { generation } => (1, generation as i32),
            Order::Forward { signal } => (2, signal),
            Order::Signal { signal } => (3, signal),
            Order::SignalRest { signal } => (4, signal),
            Order::KillAll => (5, 0),
            Order::Main { pid } => (6, pid),
        }
    }

    fn unpack(kind: u32, value: i32) -> Option<Order> {
        Some(match kind {
            1 => Order::Spawn { generation: value as u32 },
            2 => Order::Forward { signal: value },
            3 => Order::Signal { signal: value },
            4 => Order::SignalRest { signal: value },
            5 => Order::KillAll,
            6 => Order::Main { pid: value },
            _ => return None,
        })
    }
}

impl Said {
    fn pack(self) -> (u32, i32) {
        match self {
            Said::Spawned { pid } => (1, pid),
            Said::NotSpawned { errno } => (2, errno),
            Said::Ended { status } => (3, status),
            Said::Stopped { signal } => (4, signal),
            Said::Empty => (5, 0),
        }
    }

    fn unpack(kind: u32, value: i32) -> Option<Said> {
        Some(match kind {
            1 => Said::Spawned { pid: value },
            2 => Said::NotSpawned { errno: value },
            3 => Said::Ended { status: value },
            4 => Said::Stopped { signal: value },
            5 => Said::Empty,
            _ => return None,
        })
    }
}

fn send(fd: &OwnedFd, (kind, value): (u32, i32)) -> Result<(), Errno> {
    let mut message = [0; 8];
    let (first, second) = message.split_at_mut(4);
    first.copy_from_slice(&kind.to_ne_bytes());
    second.copy_from_slice(&value.to_ne_bytes());
    socket::send(fd.as_raw_fd(), &message, MsgFlags::MSG_NOSIGNAL).map(drop)
}

/// The next message; `None` at the end of file.
fn receive(fd: &OwnedFd) -> Result<Option<(u32, i32)>, Errno> {
    let mut message = [0; 8];
    let count = match socket::recv(fd.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
        // The other was killed with messages unread.
        Err(Errno::ECONNRESET) => 0,
        result => result?,
    };
    let [a, b, c, d, e, f, g, h] = message;
    Ok((count == 8).then(|| (u32::from_ne_bytes([a, b, c, d]), i32::from_ne_bytes([e, f, g, h]))))
}

/// The keeper's end.
pub(super) struct Wire(OwnedFd);

impl Wire {
    pub(super) fn new(fd: OwnedFd) -> Wire {
        Wire(fd)
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(super) fn say(&self, said: Said) -> Result<(), Errno> {
        send(&self.0, said.pack())
    }

    /// The next order; `None` once wrap is gone.
    pub(super) fn receive(&self) -> Result<Option<Order>, Errno> {
        Ok(receive(&self.0)?.and_then(|(kind, value)| Order::unpack(kind, value)))
    }
}

/// The keeper cannot be had, or is gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {action} the process that keeps the service: {}; see `ulimit -a`, and whether somebody ended it", errno.desc())]
pub struct KeeperError {
    /// What was tried.
    pub action: &'static str,
    /// Why it failed.
    pub errno: Errno,
}

/// Wrap's end.
#[derive(Debug)]
pub struct Keeper {
    pid: i32,
    channel: OwnedFd,
}

impl Keeper {
    /// Forks the keeper. `notify`: the service's `NOTIFY_SOCKET`.
    ///
    /// Call it while the process has one thread and none of its own descriptors open.
    ///
    /// # Errors
    /// Where there is no room for another process.
    pub fn start(plan: &Plan, inherited: &Inherited, notify: Option<&str>) -> Result<Keeper, KeeperError> {
        let failed = |action| move |errno| KeeperError { action, errno };
        // The orphans of a keeper that was killed are ours to kill.
        nix::sys::prctl::set_child_subreaper(true).map_err(failed("adopt the orphans of"))?;
        let pair = socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
        let (ours, theirs) = pair.map_err(failed("speak with"))?;
        // SAFETY: this process has one thread, so no lock is held in the copy.
        match unsafe { fork() }.map_err(failed("start"))? {
            ForkResult::Parent { child } => Ok(Keeper { pid: child.as_raw(), channel: ours }),
            ForkResult::Child => {
                drop(ours);
                let ran = super::run(plan, inherited, notify, theirs);
                // SAFETY: ends this process at once: what was registered to run at exit is wrap's.
                unsafe { libc::_exit(i32::from(ran.is_err())) }
            }
        }
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Asks for something.
    ///
    /// # Errors
    /// It is gone.
    pub fn order(&self, order: Order) -> Result<(), KeeperError> {
        send(&self.channel, order.pack()).map_err(|errno| KeeperError { action: "ask", errno })
    }

    /// A descriptor to wait with, within a tokio runtime.
    ///
    /// # Errors
    /// Where descriptors are short.
    pub fn listen(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let own = self.channel.try_clone()?;
        // SAFETY: the descriptor is owned, so its number is this one file's as long as it is registered.
        let registered = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) };
        registered.map_err(Into::into)
    }

    /// What it said; `Ok(None)` for nothing more at this moment.
    ///
    /// # Errors
    /// It is gone.
    pub fn hear(&self) -> Result<Option<Said>, KeeperError> {
        let gone = |errno| KeeperError { action: "hear", errno };
        match receive(&self.channel) {
            Ok(Some((kind, value))) => Ok(Said::unpack(kind, value)),
            Ok(None) => Err(gone(Errno::EPIPE)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(gone(errno)),
        }
    }

    /// Lets it end, which takes along what is left of the service, and waits for that.
    pub fn end(self) {
        drop(self.channel);
        while waitpid(Pid::from_raw(self.pid), None) == Err(Errno::EINTR) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_comes_out_as_it_went_in() {
        let orders = [
            Order::Spawn { generation: u32::MAX },
            Order::Forward { signal: 15 },
            Order::Signal { signal: 64 },
            Order::SignalRest { signal: 9 },
            Order::KillAll,
            Order::Main { pid: 77 },
        ];
        for order in orders {
            let (kind, value) = order.pack();
            assert_eq!(Order::unpack(kind, value), Some(order));
        }
        let all = [
            Said::Spawned { pid: 1 },
            Said::NotSpawned { errno: 2 },
            Said::Ended { status: 0xff00 },
            Said::Stopped { signal: 20 },
            Said::Empty,
        ];
        for said in all {
            let (kind, value) = said.pack();
            assert_eq!(Said::unpack(kind, value), Some(said));
        }
    }
}
