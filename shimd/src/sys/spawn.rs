//! The daemon's side of a spawn: see `exec` for what crosses the channel and why.
//!
//! [`begin`] → [`Pending::ready`] (the caller records the instance) → [`Pending::go`]. Dropped in between, whatever
//! was started ends without an exec.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::activation::Held;
pub use super::exec::Step;
use super::exec::{DEFAULT_PATH, GO, Report};
use super::identity::{Identity, ProcStat};
use super::pidfd::{PidFd, errno_of};
use super::template::Template;
use super::users::ResolvedUser;
use channel::Channel;
pub use error::SpawnError;

mod channel;
mod error;

/// How long a trampoline may take to prepare, and the kernel to exec. Reached only where a filesystem or a user
/// database hangs, or the machine is far beyond its means.
const PATIENCE: Duration = Duration::from_secs(20);
/// The variable by which the processes of an instance are known; its value is the mark.
pub const MARK_VARIABLE: &str = "SHIMD_INSTANCE";
/// What is never handed on: it speaks of the daemon, not of the service.
const OWN_VARIABLES: [&str; 6] = [
    "NOTIFY_SOCKET",
    "JOURNAL_STREAM",
    "INVOCATION_ID",
    MARK_VARIABLE,
    "MEMORY_PRESSURE_WATCH",
    "SYSTEMD_EXEC_PID",
];
/// Families of the same.
const OWN_PREFIXES: [&str; 2] = ["LISTEN_", "WATCHDOG_"];
/// What belongs to the session of the daemon's own user, and misleads under another.
const SESSION_VARIABLES: [&str; 3] = ["XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "MAIL"];

/// All that a service's process is to be, settled before it exists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecPlan {
    /// The arguments, the program's name first: a path if it holds a `/`, else looked up in the plan's own PATH.
    pub argv: Vec<String>,
    /// The whole environment; see [`base_env`].
    pub env: BTreeMap<String, String>,
    /// The working folder; `/` if none is named.
    pub cwd: Option<PathBuf>,
    /// Whom to become; `None` stays what the daemon is.
    pub ids: Option<Ids>,
    /// 0o022 if none is named.
    pub umask: Option<u32>,
    /// The folder of the cgroup to start in. Failing that is not fatal: see [`Pending::in_cgroup`].
    pub cgroup: Option<PathBuf>,
    /// The soft limit of open files to put back, where the daemon has raised its own.
    pub nofile_soft: Option<u64>,
    /// The listeners that are handed over, in their order: see [`Pending::hand_over`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Listen>,
}

/// A listener that a service gets by sd_listen_fds(3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// Its name in `LISTEN_FDNAMES`, without `:` and control characters.
    pub name: String,
    /// How many connections may wait; as many as the system lets if none is named.
    pub backlog: Option<u32>,
}

/// User, group and supplementary groups, as numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// A process that is prepared, or being prepared, and waits for the word to exec.
#[derive(Debug)]
pub struct Pending {
    /// What posix_spawn gave; in a cgroup another one, its sibling, becomes the service. `None` for the template's child.
    first: Option<PidFd>,
    main: Option<PidFd>,
    /// Gone once the word is given.
    channel: Option<Channel>,
    /// What is left to send of the plan.
    message: Vec<u8>,
    /// Sent after the message.
    listeners: Vec<Arc<Held>>,
    cgroup: bool,
}

/// A trampoline that is ready, its listeners handed over: the template's, or where that one went without a word, one
/// that is spawned.
///
/// # Errors
/// As [`begin`] and [`Pending::ready`].
pub async fn prepare(
    template: &Template,
    plan: &ExecPlan,
    out: &File,
    err: &File,
    listeners: Vec<Arc<Held>>,
) -> Result<(Pending, Identity), SpawnError> {
    let mut pending = begin(template, plan, out, err)?;
    pending.hand_over(listeners.clone());
    match pending.ready().await {
        Err(e) if pending.by_template() && e.is_silent() => template.renew(),
        ready => return Ok((pending, ready?)),
    }
    let mut pending = begin(&Template::none(), plan, out, err)?;
    pending.hand_over(listeners);
    let identity = pending.ready().await?;
    Ok((pending, identity))
}

/// Has a trampoline made by the template, or where there is none spawns one from the daemon's own binary (the running
/// one, also where the file was replaced since). `out` and `err` become its stdout and stderr. Needs a tokio runtime;
/// blocks for the 0.1 ms of a posix_spawn at most.
///
/// # Errors
/// [`Step::Spawn`], where the daemon is out of processes, memory or descriptors.
pub fn begin(template: &Template, plan: &ExecPlan, out: &File, err: &File) -> Result<Pending, SpawnError> {
    begin_with(Path::new("/proc/self/exe"), template, plan, out, err)
}

/// [`begin`] with the path of the binary whose `__exec` is the trampoline.
///
/// # Errors
/// As [`begin`].
#[allow(clippy::zombie_processes)] // the reaper waits for every child of the daemon
pub fn begin_with(
    shimd: &Path,
    template: &Template,
    plan: &ExecPlan,
    out: &File,
    err: &File,
) -> Result<Pending, SpawnError> {
    let failed = |e: io::Error| SpawnError::at_spawn(errno_of(&e), shimd);
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let channel = Channel::new(ours).map_err(failed)?;
    let text = serde_json::to_vec(plan).map_err(|_| SpawnError::at_spawn(Errno::EINVAL, shimd))?;
    let length = u32::try_from(text.len()).map_err(|_| SpawnError::at_spawn(Errno::E2BIG, shimd))?;
    let mut message = length.to_le_bytes().to_vec();
    message.extend(text);
    // Before anybody looks for it. A failed write is told by what the trampoline says, or does not say.
    let sent = channel.write_now(&message).unwrap_or_default();
    message.drain(..sent);
    let by_template = template.make(theirs.as_fd(), out.as_fd(), err.as_fd(), plan.cgroup.as_deref());
    let first = if by_template {
        None
    } else {
        let (out, err) = (out.try_clone().map_err(failed)?, err.try_clone().map_err(failed)?);
        // No pre_exec, uid, gid or groups: with one of them the standard library forks instead of posix_spawn.
        let child = Command::new(shimd)
            .arg0("shimd")
            .arg("__exec")
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(failed)?;
        // Alive: it waits for the plan, which it does not have yet.
        Some(PidFd::open(child.id() as i32).map_err(|e| SpawnError::at_spawn(e.errno, shimd))?)
    };
    Ok(Pending {
        first,
        main: None,
        channel: Some(channel),
        message,
        listeners: Vec::new(),
        cgroup: plan.cgroup.is_some(),
    })
}

impl Pending {
    /// The listeners that the plan names, in its order. Before [`ready`](Pending::ready).
    pub fn hand_over(&mut self, listeners: Vec<Arc<Held>>) {
        self.listeners = listeners;
    }

    /// Whether it was left to the template, which may have gone without a word.
    pub fn by_template(&self) -> bool {
        self.first.is_none()
    }

    /// Waits until the process is all that the plan says, save the program, and gives its identity: to be recorded
    /// before [`go`](Pending::go).
    ///
    /// # Errors
    /// The step that failed. Nothing was started then.
    pub async fn ready(&mut self) -> Result<Identity, SpawnError> {
        let message = std::mem::take(&mut self.message);
        let listeners = std::mem::take(&mut self.listeners);
        let channel = self.channel.as_ref().ok_or_else(SpawnError::died)?;
        let talk = async {
            // A failed write is told by what the trampoline said, or did not say.
            let _ = channel.write(&message).await;
            let _ = channel.send_listeners(&listeners).await;
            channel.report().await
        };
        match tokio::time::timeout(PATIENCE, talk).await.map_err(|_| SpawnError::late(Step::Spawn))?? {
            None => Err(SpawnError::died()),
            Some(Report::Failed(failure)) => Err(failure.into()),
            Some(Report::Ready { pid, cgroup_errno }) => {
                let gone = |errno| SpawnError::at_spawn(errno, Path::new("the trampoline"));
                let main = PidFd::open(pid).map_err(|e| gone(e.errno))?;
                let stat = ProcStat::held(&main).map_err(|e| gone(e.errno))?;
                let identity = Identity::with(&main, &stat);
                if stat.ppid != std::process::id() as i32 {
                    return Err(gone(Errno::ESRCH)); // it died, and its number is another's by now
                }
                if let Some(errno) = cgroup_errno {
                    tracing::warn!(
                        pid,
                        errno,
                        "a service could not enter its cgroup and is kept track of by its session"
                    );
                    self.cgroup = false;
                }
                self.main = Some(main);
                Ok(identity)
            }
        }
    }

    /// True if the process is in the plan's cgroup. Ask once it is ready.
    pub fn in_cgroup(&self) -> bool {
        self.cgroup
    }

    /// Gives the word, and returns once the program runs. From the first poll on the instance must be taken for
    /// started, also if this future is dropped.
    ///
    /// A trampoline that somebody kills in this very moment counts as started: its end is reported by the reaper,
    /// as that of any instance.
    ///
    /// # Errors
    /// [`Step::Exec`]: the kernel refused the program. Nothing runs then.
    pub async fn go(mut self) -> Result<(), SpawnError> {
        let Some(channel) = self.channel.take() else { return Err(SpawnError::died()) };
        let talk = async {
            let _ = channel.write(GO).await;
            channel.report().await
        };
        match tokio::time::timeout(PATIENCE, talk).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(Report::Failed(failure)))) => Err(failure.into()),
            Ok(Ok(Some(Report::Ready { .. }))) => Err(SpawnError::died()),
            Ok(Err(e)) => Err(e),
            Err(_) => {
                self.end();
                Err(SpawnError::late(Step::Exec))
            }
        }
    }

    fn end(&self) {
        for process in [self.first.as_ref(), self.main.as_ref()].into_iter().flatten() {
            let _ = process.signal(libc::SIGKILL); // gone already is as good
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // The end of file on the channel ends it too, but not while it hangs in a system call. (Of the template's child
        // the number is not known until it is ready: that one ends when its call returns.)
        if self.channel.is_some() {
            self.end();
        }
    }
}

/// The environment of a service: the daemon's own, less what speaks of the daemon; who the user is, where one is
/// named; the spec's; and the mark. `notify` is the value of `NOTIFY_SOCKET` for a service that is to use it.
/// Variables of the daemon that are not UTF-8 are left out.
pub fn base_env(
    spec_env: &BTreeMap<String, String>,
    user: Option<&ResolvedUser>,
    mark: &str,
    notify: Option<&str>,
) -> BTreeMap<String, String> {
    inherited_env(std::env::vars_os(), spec_env, user, mark, notify)
}

fn inherited_env(
    own: impl Iterator<Item = (OsString, OsString)>,
    spec_env: &BTreeMap<String, String>,
    user: Option<&ResolvedUser>,
    mark: &str,
    notify: Option<&str>,
) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = own
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .filter(|(k, _)| {
            !OWN_VARIABLES.contains(&k.as_str()) && !OWN_PREFIXES.iter().any(|p| k.starts_with(p))
        })
        .collect();
    env.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
    if let Some(user) = user {
        if user.ids.uid != nix::unistd::Uid::effective().as_raw() {
            env.retain(|k, _| !SESSION_VARIABLES.contains(&k.as_str()));
        }
        env.insert("HOME".into(), user.home.display().to_string());
        env.insert("SHELL".into(), user.shell.display().to_string());
        env.insert("USER".into(), user.name.clone());
        env.insert("LOGNAME".into(), user.name.clone());
    }
    env.extend(spec_env.clone());
    env.insert(MARK_VARIABLE.into(), mark.into());
    env.extend(notify.map(|address| ("NOTIFY_SOCKET".into(), address.into())));
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(vars: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        vars.iter().map(|(k, v)| (k.into(), v.into())).collect()
    }

    #[test]
    fn what_speaks_of_the_daemon_is_not_handed_on() {
        let own = pairs(&[
            ("PATH", "/bin"),
            ("LANG", "C"),
            ("NOTIFY_SOCKET", "/run/n"),
            ("LISTEN_FDS", "1"),
            ("WATCHDOG_USEC", "1"),
            ("JOURNAL_STREAM", "1:2"),
            ("INVOCATION_ID", "x"),
            ("SHIMD_INSTANCE", "outer"),
        ]);
        let env = inherited_env(own.into_iter(), &BTreeMap::new(), None, "tag/svc/1", None);
        let expected = [("LANG", "C"), ("PATH", "/bin"), (MARK_VARIABLE, "tag/svc/1")];
        assert_eq!(env, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }

    #[test]
    fn spec_wins_over_user_and_user_over_daemon_and_nobody_over_the_mark() {
        let user = ResolvedUser {
            name: "svc".into(),
            ids: Ids { uid: 4242, gid: 4242, groups: vec![] },
            home: "/srv".into(),
            shell: "/bin/false".into(),
        };
        let own = pairs(&[("HOME", "/root"), ("USER", "root"), ("XDG_RUNTIME_DIR", "/run/user/0")]);
        let spec = [("USER", "mine"), (MARK_VARIABLE, "forged"), ("NOTIFY_SOCKET", "forged")];
        let spec = spec.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let env = inherited_env(own.into_iter(), &spec, Some(&user), "m", Some("@n"));
        let get = |name: &str| env.get(name).map(String::as_str);
        assert_eq!((get("HOME"), get("USER"), get("LOGNAME")), (Some("/srv"), Some("mine"), Some("svc")));
        assert_eq!((get(MARK_VARIABLE), get("NOTIFY_SOCKET")), (Some("m"), Some("@n")));
        assert_eq!((get("XDG_RUNTIME_DIR"), get("PATH")), (None, Some(DEFAULT_PATH)));
    }
}
