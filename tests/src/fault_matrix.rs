//! The fault matrix: what was done to a service's socket, the verdict and the reason that must follow, and what its clients
//! see. Each scenario has one [`Row`], is held to it by [`World::expect_fault`], and the docs' table is made of the rows.
//!
//! What is looked at, and where:
//!
//! | | asked |
//! | --- | --- |
//! | verdict, reason | `socket.check` over the control socket, until both are as the row says |
//! | clients | a process of its own that connects as a client does (`unixd probe`) |
//! | the service | `proc list` in Nushell: `failed` with its `health_reason`; `running` where the row's verdict is `ok` |
//! | the culprit | `culprit` of `socket.check`, where this machine lets the daemon know it |

use crate::hand::Hand;
use crate::probe::Seen;
use crate::relinking::{self, Relink};
use crate::scenario::{scenario, scenario_as};
use crate::wait::{holds_for, wait_for};
use crate::{Fault, Json, Need, Result, World, culprits, ensure, specs};
use libtest_mimic::Trial;
use nix::unistd::{User, geteuid};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// How long a verdict may take that an event brings: less than the audit's period of 5 s, with room for a busy machine.
pub const AT_ONCE: Duration = Duration::from_secs(4);

/// How long what only the period or a new start brings may take.
pub const SOON: Duration = Duration::from_secs(12);

/// How long what is no fault must not be called one.
const HOLDS: Duration = Duration::from_secs(1);

/// The user as whom each scenario that needs no root is run once more.
const ORDINARY: &str = "nobody";

/// What a `health_reason` begins with when a declared socket has no dentry.
const MISSING: &str = "declared socket missing on disk: ";

/// One row of the matrix.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The scenario's name, its file's and its trial's.
    pub name: &'static str,
    /// What was done, in words.
    pub done: &'static str,
    /// The verdict that must follow; `ok` for what must not be seen as a fault.
    pub verdict: &'static str,
    /// Words that the reason must hold.
    pub reason: &'static str,
    /// What a client sees, in the words of [`Seen`].
    pub clients: &'static str,
    /// Where it ends with `on_missing: relink`.
    pub relink: Relink,
    /// What the scenario needs beside the daemon and Nushell.
    pub needs: &'static [Need],
}

/// The row's trial, and, run by root, a second one in a world of an ordinary user unless the row needs root; the same again
/// with `on_missing: relink`.
pub fn trials(row: Row, run: fn(&World) -> Result) -> Vec<Trial> {
    let mut needs = vec![Need::Daemon, Need::Nushell];
    needs.extend(row.needs.iter().cloned());
    let root = needs.iter().any(|need| matches!(need, Need::Root));
    let ordinary = (geteuid().is_root() && !root).then_some(ORDINARY);
    let mut trials = vec![scenario(row.name, &needs, run)];
    trials.extend(ordinary.map(|user| scenario_as(user, &format!("{}::as_user", row.name), &needs, run)));
    trials.extend(relinking::trials(row, &needs, ordinary, run));
    trials
}

/// The page of the docs.
pub fn page(rows: &[Row]) -> String {
    let mut page = String::from(
        "# Faults\n\n\
         What can happen to a Unix socket, what `proc socket-check` says of it, and what a client gets meanwhile. Each row\n\
         is a test with real processes, `tests/faults/NAME.rs`. This page is made of them: `cargo xtask faults-table`.\n\n\
         The whole reason holds the words of `reason`. \"a hang\": no answer, or no room in the queue (EAGAIN).\n\n\
         Verdict, reason and clients are with `on_missing: report`. The last column says where the same ends with `relink`:\n\
         put back within moments, with the process and the listener that were there before; restarted, where that cannot be; or\n\
         as it is, with no restart (docs/healing.md). It is empty where no file is at fault.\n\n\
         | name | what was done | verdict | reason | clients | with `relink` |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in rows {
        let cell = |text: &str| text.replace('|', "\\|");
        // Writing to a string does not fail.
        let _ = writeln!(
            page,
            "| `{}` | {} | `{}` | {} | {} | {} |",
            row.name,
            cell(row.done),
            row.verdict,
            cell(row.reason.trim_end()),
            row.clients,
            row.relink.cell()
        );
    }
    page
}

/// Starts the daemon and the service `web` on its `rpc.sock`; gives its pid and the socket's path.
pub fn serve(world: &World, options: &[&str]) -> Result<(i32, PathBuf)> {
    serve_with(world, options, json!({}))
}

/// The same with further fields in the service's spec.
pub fn serve_with(world: &World, options: &[&str], fields: Value) -> Result<(i32, PathBuf)> {
    world.start_daemon()?;
    let pid = world.up(&specs::with(specs::unixd(world, "web", options), fields))?;
    Ok((pid, world.socket("web", "rpc.sock")))
}

impl World {
    /// Waits until the socket is judged as the row says, then holds clients and `proc list` to the row too.
    /// Gives the row of `socket.check`.
    pub fn expect_fault(&self, row: &Row, service: &str, socket: &str, limit: Duration) -> Result<Value> {
        self.expect_fault_for(row, service, socket, limit, None)
    }

    /// The same with the client run as another user.
    pub fn expect_fault_for(
        &self,
        row: &Row,
        service: &str,
        socket: &str,
        limit: Duration,
        client: Option<&User>,
    ) -> Result<Value> {
        self.hold_to_relinking(row, service, socket, limit, client)?;
        match row.verdict {
            "ok" => holds_for(HOLDS, format!("{service}'s {socket} is ok"), || {
                let judged = self.socket_row(service, socket)?.text("verdict")? == "ok";
                Ok(judged && self.service(service)?.text("status")? == "running")
            })?,
            // Not settled: what the service is called meanwhile depends on what it was before.
            "unknown" => {}
            _ => drop(self.wait_status(service, "failed", limit)?),
        }
        let found = self.wait_verdict(service, socket, row.verdict, row.reason, limit)?;
        let seen = self.client_sees(service, socket, client)?;
        let as_said = seen.to_string() == row.clients;
        ensure!(as_said, "a client sees {seen}, and not {}; {found}", row.clients);
        self.expect_listed(service, socket, row.verdict)?;
        Ok(found)
    }

    /// The same for a service that has ended: its `health_reason` tells of the end, and the socket's row of the file.
    pub fn expect_fault_of_dead(
        &self,
        row: &Row,
        service: &str,
        socket: &str,
        limit: Duration,
    ) -> Result<Value> {
        let failed = self.wait_status(service, "failed", limit)?;
        ensure!(failed.field("pid").is_null(), "it has ended: {failed}");
        let found = self.wait_verdict(service, socket, row.verdict, row.reason, limit)?;
        let seen = self.client_sees(service, socket, None)?;
        ensure!(seen.to_string() == row.clients, "a client sees {seen}, and not {}; {found}", row.clients);
        let listed = self.nu_json("proc list")?;
        let listed = listed.row("name", service)?;
        ensure!(
            listed.text("status")? == "failed" && listed.int("sockets_ok")? == 0,
            "never green: {listed}"
        );
        Ok(found)
    }

    /// Waits until a declared socket has the verdict and a reason that holds these words; gives its row.
    pub fn wait_verdict(
        &self,
        service: &str,
        socket: &str,
        verdict: &str,
        reason: &str,
        limit: Duration,
    ) -> Result<Value> {
        let what = format!("{service}'s {socket} is {verdict} with `{reason}` in its reason");
        self.wait_row(service, socket, &what, limit, |row| {
            let words = row.text("reason").unwrap_or_default();
            row.text("verdict").ok() == Some(verdict) && words.contains(reason)
        })
    }

    /// Waits until the row names whoever did it. Where the daemon may not know it, holds that it names nobody.
    pub fn expect_culprit(&self, service: &str, socket: &str, hand: &Hand) -> Result<Value> {
        if !self.names_culprits() {
            let row = self.socket_row(service, socket)?;
            ensure!(row.field("culprit").is_null(), "it cannot know the culprit: {row}");
            return Ok(row);
        }
        let what = format!("{service}'s {socket} names {hand} as the culprit");
        self.wait_row(service, socket, &what, AT_ONCE, |row| {
            let culprit = row.field("culprit");
            culprit.int("pid").ok() == Some(hand.pid.into())
                && culprit.text("name").ok() == Some(hand.name.as_str())
                && culprit.int("uid").ok() == Some(hand.uid.into())
        })
    }

    /// Whether this world's daemon can know who removed a file.
    pub fn names_culprits(&self) -> bool {
        self.user().is_none() && culprits::are_told(self.folder())
    }

    /// Whom mode bits shut out: root passes them all, so in a world of root's it is somebody else.
    pub fn shut_out_client(&self) -> Result<Option<User>> {
        if self.user().is_none() && geteuid().is_root() { Ok(User::from_name(ORDINARY)?) } else { Ok(None) }
    }

    /// Shows that a socket is in order again and that the service's own process answers there.
    pub fn serves_again(&self, service: &str, socket: &str) -> Result {
        self.wait_verdict(service, socket, "ok", "", SOON)?;
        self.wait_status(service, "running", SOON)?;
        self.remember(service)?;
        let seen = self.client_sees(service, socket, None)?;
        ensure!(seen == Seen::Answers, "clients are to be served again, and one sees {seen}");
        self.expect_listed(service, socket, "ok")
    }

    /// Restarts a service with `--clean`, and shows that clients of the socket are served again.
    pub fn cured_by_clean_restart(&self, service: &str, socket: &str) -> Result {
        let restarted = self.nu_json(&format!("proc restart {service} --clean"))?;
        let row = restarted.only()?;
        ensure!(row.text("outcome")? == "restarted", "{row}");
        self.serves_again(service, socket)
    }

    /// The row of `socket.check` for one declared socket.
    pub fn socket_row(&self, service: &str, socket: &str) -> Result<Value> {
        Ok(self.rpc("socket.check", json!({"name": service}))?.row("socket", socket)?.clone())
    }

    /// What a client of a declared socket sees.
    pub fn client_sees(&self, service: &str, socket: &str, client: Option<&User>) -> Result<Seen> {
        let status = self.status(service)?;
        let path = status.field("sockets").row("socket", socket)?.text("path")?.to_owned();
        let declared = status.field("spec").field("sockets").rows()?;
        let of_path = declared.iter().find(|declared| declared.field("path") == socket);
        let kind = of_path.and_then(|declared| declared.text("type").ok()).unwrap_or("stream");
        self.probe(path.as_ref(), kind, client, || self.instance_pids(service).unwrap_or_default())
    }

    /// Looks at `socket.check` until `fits` says so of the socket's row.
    fn wait_row(
        &self,
        service: &str,
        socket: &str,
        what: &str,
        limit: Duration,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Value::Null;
        let waited = wait_for(limit, what, || {
            last = self.socket_row(service, socket)?;
            Ok(fits(&last).then(|| last.clone()))
        });
        waited.map_err(|fault| Fault(format!("{fault}; it is {last}")))
    }

    /// What `proc list` must say of a service with a socket of this verdict.
    fn expect_listed(&self, service: &str, socket: &str, verdict: &str) -> Result {
        let listed = self.nu_json("proc list")?;
        let row = listed.row("name", service)?;
        let reason = row.text("health_reason").unwrap_or_default();
        match verdict {
            "ok" => ensure!(row.text("status")? == "running" && reason.is_empty(), "it is in order: {row}"),
            "dangling" | "absent" => {
                let named = reason.starts_with(MISSING) && reason.contains(&format!("{MISSING}{socket}"));
                ensure!(row.text("status")? == "failed" && named, "{socket} has no file: {row}");
            }
            "unknown" => {}
            _ => {
                let named = reason.contains(socket);
                ensure!(row.text("status")? == "failed" && named, "{socket} is {verdict}: {row}");
            }
        }
        Ok(())
    }
}
