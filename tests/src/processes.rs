//! The processes of a world: whoever has its folder in an environment, a command line, a current folder or an
//! open file. A service's output goes to a log file in the world's home, so no service can hide.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Result, ensure, wait_until};

/// How long a process may take to read a signal.
const TAKES: Duration = Duration::from_secs(3);

/// A process that was seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its command line.
    pub command: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.pid, self.command)
    }
}

/// Every living process, this one left out, that has to do with the folder.
pub fn of_folder(folder: &Path) -> Vec<Process> {
    let own = std::process::id();
    pids()
        .into_iter()
        .filter(|pid| u32::try_from(*pid) != Ok(own))
        .filter_map(|pid| concerned(pid, folder))
        .collect()
}

/// Whether a process exists and is not merely waiting to be reaped. Its first thread can be a zombie while others still
/// hold its files: all of them count.
pub fn alive(pid: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().any(|thread| state(&thread.path()).is_some_and(|state| state != 'Z' && state != 'X'))
}

/// The children of a process.
pub fn children(pid: i32) -> Vec<i32> {
    let parent = pid.to_string();
    let is_child = |pid: &i32| {
        stat(Path::new(&format!("/proc/{pid}"))).is_some_and(|fields| fields.get(1) == Some(&parent))
    };
    pids().into_iter().filter(is_child).collect()
}

/// Whether each of its threads is stopped, by a signal.
pub fn stopped(pid: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| state(&thread.path()) == Some('T'))
}

/// Sends a signal; `false` when there is no such process.
pub fn signal(pid: i32, signal: Signal) -> bool {
    kill(Pid::from_raw(pid), signal).is_ok()
}

/// Sends a signal to a process that reads its signals, and waits until it has read this one.
pub fn signal_taken(pid: i32, sent: Signal) -> Result {
    ensure!(signal(pid, sent), "process {pid} has ended");
    let bit = 1_u64 << (sent as i32 - 1);
    wait_until(TAKES, format!("{pid} has read {sent}"), || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
        pending.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & bit == 0)
    })
}

/// Kills all processes of a folder, also those that appear meanwhile.
pub fn kill_all(folder: &Path) {
    for _ in 0..50 {
        let left = of_folder(folder);
        if left.is_empty() {
            return;
        }
        for process in left {
            signal(process.pid, Signal::SIGKILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The fields of a `stat` file behind the command name, which may itself hold spaces and brackets.
fn stat(process: &Path) -> Option<Vec<String>> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn state(process: &Path) -> Option<char> {
    stat(process)?.first()?.chars().next()
}

fn concerned(pid: i32, folder: &Path) -> Option<Process> {
    let proc = format!("/proc/{pid}");
    let needle = folder.as_os_str().as_encoded_bytes();
    let holds = |file: &str| {
        fs::read(format!("{proc}/{file}"))
            .is_ok_and(|bytes| bytes.windows(needle.len()).any(|part| part == needle))
    };
    let below = |link: &Path| fs::read_link(link).is_ok_and(|target| target.starts_with(folder));
    let opens = || {
        fs::read_dir(format!("{proc}/fd"))
            .is_ok_and(|entries| entries.flatten().any(|entry| below(&entry.path())))
    };
    let concerned =
        below(Path::new(&format!("{proc}/cwd"))) || holds("cmdline") || holds("environ") || opens();
    (concerned && alive(pid)).then(|| Process { pid, command: command(pid) })
}

fn command(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').replace('\0', " ")
}
