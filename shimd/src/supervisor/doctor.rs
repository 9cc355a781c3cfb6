//! `shim.doctor`: what this machine and this user let the daemon do, and what to do where they do not.

use shimd_api::event::DoctorRow;
use socket_audit::{Diag, Verdict};

use super::{PERIOD, Supervisor};
use crate::sys::limits;

pub(super) fn well(check: &str, detail: impl Into<String>) -> DoctorRow {
    DoctorRow { check: check.into(), ok: true, detail: detail.into(), help: None }
}

pub(super) fn ill(check: &str, detail: impl Into<String>, help: impl Into<String>) -> DoctorRow {
    DoctorRow { check: check.into(), ok: false, detail: detail.into(), help: Some(help.into()) }
}

impl Supervisor {
    /// All rows.
    pub(super) fn doctor(&self) -> Vec<DoctorRow> {
        let mut rows = vec![
            sock_diag(),
            self.inotify(),
            self.mounts(),
            self.fanotify(),
            self.trees(),
            self.readiness(),
            self.store_row(),
            self.files(),
            self.pins_row(),
            self.control_row(),
        ];
        rows.extend(self.prevention_rows());
        rows.extend(
            self.logs.troubles().into_iter().map(|t| ill("logs", t, "see that the log folder is writable")),
        );
        let told = ["watch", "notify", "store", "control"];
        let others = self.troubles.iter().filter(|(what, _)| !told.contains(*what));
        rows.extend(others.map(|(what, trouble)| ill(what, trouble, help(what))));
        rows
    }

    fn inotify(&self) -> DoctorRow {
        let unwatched = self.watcher.unwatched();
        match unwatched.first() {
            None => well("inotify", format!("folders that are watched: {}", self.folders.len())),
            Some(first) => ill(
                "inotify",
                format!(
                    "folders that are not watched: {}, the first: {first}; the audit every {PERIOD:?} stands in",
                    unwatched.len()
                ),
                "raise fs.inotify.max_user_watches (ENOSPC) or fs.inotify.max_user_instances (EMFILE) with sysctl -w",
            ),
        }
    }

    fn mounts(&self) -> DoctorRow {
        if self.watcher.sees_mounts() {
            return well("mounts", "/proc/self/mountinfo tells of mounts at once");
        }
        let detail = format!(
            "mounts are seen by the audit every {PERIOD:?} only: /proc/self/mountinfo cannot be read"
        );
        ill("mounts", detail, "mount /proc in shimd's mount namespace")
    }

    /// Why a culprit may be missing.
    fn fanotify(&self) -> DoctorRow {
        let blame = match &self.blame {
            Err(e) => {
                let what = format!("culprit stays empty: {}: {}", e.action, e.errno.desc());
                return ill("fanotify", what, e.help());
            }
            Ok(blame) => blame,
        };
        let unmarked = blame.unmarked();
        match unmarked.first() {
            None => well(
                "fanotify",
                format!("folders in which it is seen who removes a socket: {}", self.blamed.len()),
            ),
            Some((folder, errno)) => ill(
                "fanotify",
                format!(
                    "folders that have no culprits: {}, the first: {}: {}",
                    unmarked.len(),
                    folder.display(),
                    errno.desc()
                ),
                "their file system has no file handles: culprits are told on ext4, XFS, btrfs and tmpfs",
            ),
        }
    }

    fn trees(&self) -> DoctorRow {
        match &self.cgroups {
            Ok(_) => well("cgroup", "every instance has a cgroup of its own: its whole tree is known"),
            Err(why) => ill(
                "cgroup",
                format!("process trees are followed by session, parent and environment: {why}"),
                "let shimd have a writable cgroup (cgroup v2): run it as root, or as a systemd service with Delegate=yes",
            ),
        }
    }

    fn readiness(&self) -> DoctorRow {
        match self.troubles.get("notify") {
            None => well("notify", "READY=1 is received"),
            Some(trouble) => {
                ill("notify", trouble, "specs with ready.notify cannot become ready: see what is in the way")
            }
        }
    }

    fn store_row(&self) -> DoctorRow {
        let trouble = self.troubles.get("store").cloned().or_else(|| self.store.trouble());
        let path = self.home.database();
        match trouble {
            None => well("store", format!("{} is written", path.display())),
            Some(trouble) => ill("store", trouble, format!("free disk space below {}", path.display())),
        }
    }

    fn files(&self) -> DoctorRow {
        let limit = limits::nofile();
        if let Some(short) = limits::shortage() {
            return ill(
                "files",
                short,
                "no instance is started until there are more; those that run are looked after",
            );
        }
        if self.holds {
            return well("files", format!("up to {limit} open files: each socket's dentry is held"));
        }
        ill(
            "files",
            format!(
                "up to {limit} open files: too few to hold each socket's dentry, so what became of a lost one is told less exactly"
            ),
            "raise the hard limit of open files (LimitNOFILE=, ulimit -Hn) and start shimd again",
        )
    }
}

fn help(what: &str) -> &'static str {
    match what {
        "damaged-store" => {
            "see with proc list whether all services are there and register those that are not; the old file may then be removed"
        }
        "output" => "make the disk under the logs writable, then proc restart",
        "unknown-instances" => "register them again, then proc restart --clean each, or end those processes",
        _ => "see shimd.log",
    }
}

fn sock_diag() -> DoctorRow {
    match Diag::open().and_then(|mut diag| diag.dump()) {
        Ok(listeners) => {
            well("sock_diag", format!("the kernel names {} bound Unix sockets", listeners.len()))
        }
        Err(e) => {
            let forbidden = "run shimd where NETLINK_SOCK_DIAG is allowed (not in gVisor, nor under a seccomp filter that forbids it)";
            let help = if limits::shortage().is_some() { "see the row files" } else { forbidden };
            ill("sock_diag", format!("every verdict is {}: {e}", Verdict::Unknown), help)
        }
    }
}
