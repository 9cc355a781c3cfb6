//! The edge: everything that asks the kernel to do something to a process. One behaviour a file; `unsafe` is
//! allowed here, file by file, and nowhere else in the daemon.

pub mod cgroup;
pub mod exec;
pub mod identity;
pub mod notify;
pub mod pidfd;
pub mod reaper;
pub mod spawn;
pub mod tree;
pub mod users;
