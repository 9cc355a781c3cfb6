//! Bridges: processes of `shimd` that stand in at a path for a listener whose file is gone, and pass its connections on.
//!
//! A bridge is told by its command line, which every user may read: `shimd __bridge PID PATH`, PID being the process
//! that serves. Anybody may run a program under such a line, so only processes of root and of our own user are believed;
//! whoever acts on it compares [`Bridge::user`].

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::unistd::geteuid;

use crate::procfs::{describe, real_uid};

/// The first argument of a bridge.
pub const ARGUMENT: &str = "__bridge";
/// What it calls itself.
pub const PROGRAM: &str = "shimd";

/// A process that is a bridge, by its command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// The bridge's own process.
    pub pid: i32,
    /// The process whose listener it leads to.
    pub serves: i32,
    /// The path it stands at.
    pub path: PathBuf,
    /// Its real user.
    pub user: Option<u32>,
}

impl Bridge {
    /// What a process says of itself; `None` of one that is no bridge.
    pub fn of(pid: i32) -> Option<Bridge> {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut bridge = parse(&line)?;
        (bridge.pid, bridge.user) = (pid, real_uid(pid));
        let believed = |user: u32| user == 0 || user == geteuid().as_raw();
        bridge.user.is_some_and(believed).then_some(bridge)
    }

    /// The reason of what an audit finds where it stands.
    pub fn words(&self) -> String {
        let server = describe(self.serves)
            .map_or_else(|| format!("pid {}", self.serves), |process| process.to_string());
        let own = format!("pid {} ({PROGRAM})", self.pid);
        format!(
            "bridged: {own} passes connections on to {server}'s listener, which has no name; restart the service"
        )
    }
}

fn parse(line: &[u8]) -> Option<Bridge> {
    let mut arguments = line.split(|byte| *byte == 0);
    let (program, argument) = (arguments.next()?, arguments.next()?);
    if program != PROGRAM.as_bytes() || argument != ARGUMENT.as_bytes() {
        return None;
    }
    let serves = std::str::from_utf8(arguments.next()?).ok()?.parse().ok()?;
    let path = PathBuf::from(OsString::from_vec(arguments.next()?.to_vec()));
    path.is_absolute().then_some(Bridge { pid: 0, serves, path, user: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bridge_s_command_line_is_one() {
        let bridge = parse(b"shimd\0__bridge\0812\0/run/a b.sock\0").unwrap();
        assert_eq!((bridge.serves, bridge.path), (812, PathBuf::from("/run/a b.sock")));
        for other in [
            "",
            "shimd\0run\0",
            "shimd\0__bridge\0x\0/a\0",
            "shimd\0__bridge\x007\0a\0",
            "sh\0__bridge\x007\0/a\0",
        ] {
            assert_eq!(parse(other.as_bytes()), None, "{other:?}");
        }
        assert_eq!(Bridge::of(std::process::id() as i32), None);
    }
}
