//! Kernel truth against directory truth: a [`Verdict`] for any Unix socket path.
//!
//! A Unix socket has two halves that come apart: the listener, which the kernel keeps for as long as a
//! process holds it, and the directory entry, by which clients find it and which anyone may remove. This
//! crate asks both sides and says how they stand. It changes nothing and connects to nothing.
//!
//! ```no_run
//! use socket_audit::{Auditor, Expect, Verdict};
//!
//! let mut auditor = Auditor::new()?;
//! for finding in auditor.audit(&[Expect::path("/run/redis.sock")]) {
//!     if finding.verdict != Verdict::Ok {
//!         println!("{}: {}: {}", finding.path.display(), finding.verdict, finding.reason);
//!     }
//! }
//! # Ok::<(), socket_audit::AuditError>(())
//! ```

mod access;
mod acl;
mod alone;
mod audit;
mod bearers;
mod bound;
pub mod bridge;
mod cause;
mod dentry;
mod diag;
mod error;
mod glance;
mod inquiry;
mod listener;
mod locate;
mod message;
mod netns;
pub mod procfs;
mod queue;
mod reach;
mod reason;
mod reception;
mod snapshot;
mod system;
mod turns;
pub mod verdict;
mod whereabouts;
mod witness;

pub use access::{Peer, Peers};
pub use audit::{Auditor, Expect, Finding, Owner, Party};
pub use cause::Cause;
pub use dentry::{Dentry, DentryKind, Mounts, look};
pub use diag::Diag;
pub use error::AuditError;
pub use listener::{Listener, ListenerId, ListenerState, Name, SocketKind, Vfs};
pub use locate::{FileError, file_of_listener, file_of_own};
pub use procfs::Process;
pub use queue::{Flow, Queue, Waiting};
pub use reason::wedged_reason;
pub use system::SystemReport;
pub use verdict::Verdict;
pub use witness::{Account, Witness};
