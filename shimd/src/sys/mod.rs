//! The edge: everything that asks the kernel to do something to a process or to the file system. One
//! behaviour a file; `unsafe` is allowed here, file by file, and nowhere else in the daemon.

pub mod activation;
pub mod as_peer;
pub mod blame;
pub mod cgroup;
pub mod clean;
pub mod detach;
pub mod exec;
pub mod folder;
pub mod guard;
pub mod holder;
pub mod identity;
pub mod limits;
pub mod lock;
pub mod nameless;
pub mod notify;
pub mod pidfd;
pub mod pin;
pub mod program;
pub mod publish;
pub mod reaper;
pub mod schedule;
pub mod spawn;
pub mod template;
pub mod timer;
pub mod tree;
pub mod users;
pub mod watch;
