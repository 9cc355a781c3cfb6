//! `proc socket-check`: kernel truth against directory truth.

use std::io::IsTerminal;
use std::path::Path;

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Span, Spanned, Type, Value};
use serde_json::json;
use shimd_api::wire::SocketRow;
use socket_audit::{Auditor, Expect, Finding, Verdict};

use crate::daemon::Daemon;
use crate::error::{self, Blame};
use crate::input::{Names, names_param};
use crate::plugin::Proc;
use crate::signature::ServiceSignature;
use crate::{place, value};

/// `proc socket-check`.
pub struct SocketCheck;

impl PluginCommand for SocketCheck {
    type Plugin = Proc;

    fn name(&self) -> &str {
        "proc socket-check"
    }

    fn description(&self) -> &str {
        "Say of sockets whether clients can reach them, and if not, why."
    }

    fn extra_description(&self) -> &str {
        "Nothing is changed and nothing is connected to: what the kernel listens on is compared with what lies at the path.
A name is a service's, and gives all its sockets; what holds a / or begins with @ is a path, which need not belong to
any service and needs no daemon. Without either: all sockets of all services.

verdict is ok; dangling (it listens, and its file is gone); replaced (something else lies at its path); foreign (another
process listens there); stale (a file that nobody listens on); not-socket; absent; wedged; denied; or unknown."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["unix", "listener", "audit", "verdict", "dangling", "ss", "lsof"]
    }

    fn signature(&self) -> Signature {
        Signature::build("proc socket-check")
            .services()
            .names("Services, or paths of sockets; all sockets of all services if none is named.")
            .switch(
                "system",
                "Every named listener of this machine that clients cannot reach by its name.",
                Some('s'),
            )
            .fail_flag("A verdict other than ok is an error.")
            .takes_names(Type::table())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                example: "proc socket-check | where verdict != ok",
                description: "The services' sockets that clients cannot reach",
                result: None,
            },
            Example {
                example: "proc socket-check redis | select socket verdict pending backlog",
                description: "One service's sockets, and how full their queues are",
                result: None,
            },
            Example {
                example: "proc socket-check /run/dbus/system_bus_socket",
                description: "Any socket; no daemon is needed",
                result: None,
            },
            Example {
                example: "proc socket-check --system",
                description: "What else on this machine has lost its socket",
                result: None,
            },
        ]
    }

    fn run(
        &self,
        _: &Proc,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        input: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        // Rows of this very command name a service, or else are of a bare path.
        let names = Names::read_columns(call, input, &["name", "service", "path"])?;
        let (answer, names) = match (call.has_flag("system")?, names) {
            (true, Names::NotGiven) => (whole_system(call.head)?, Vec::new()),
            (true, Names::Given(names)) => {
                let span = names.first().map_or(call.head, |name| name.span);
                let help = "leave out either --system or the names";
                return Err(error::bad_input(
                    "--system looks at everything".into(),
                    "not at this alone",
                    span,
                    help,
                ));
            }
            (false, Names::NotGiven) => (of_daemon(engine, None, call.head)?.into(), Vec::new()),
            (false, Names::Given(names)) => {
                let (paths, services): (Vec<_>, Vec<_>) =
                    names.iter().cloned().partition(|name| is_path(&name.item));
                let mut rows = match services.is_empty() {
                    true => Vec::new(),
                    false => of_daemon(engine, Some(services), call.head)?,
                };
                rows.extend(of_paths(engine, &paths));
                (rows.into(), names)
            }
        };
        if call.has_flag("fail")? {
            let bad = answer.rows.iter().filter(|row| row.verdict != Verdict::Ok.as_str());
            let blame = Blame { head: call.head, names };
            error::fail_if_any("clients cannot reach", bad.map(reason), &blame)?;
        }
        Ok(answer.into_table(call.head))
    }
}

/// The rows, and what could not be looked at.
struct Answer {
    rows: Vec<SocketRow>,
    blind: Vec<String>,
}

impl From<Vec<SocketRow>> for Answer {
    fn from(rows: Vec<SocketRow>) -> Self {
        Answer { rows, blind: Vec::new() }
    }
}

impl Answer {
    /// The table. What was not seen is told on a terminal, and carried in the metadata (`blind`) for a script.
    fn into_table(self, span: Span) -> PipelineData {
        if std::io::stderr().is_terminal() {
            for unseen in &self.blind {
                eprintln!("not seen: {unseen}");
            }
        }
        let mut table = value::table(&self.rows, span);
        if let PipelineData::Value(_, Some(metadata)) = &mut table
            && !self.blind.is_empty()
        {
            let blind = self.blind.iter().map(|unseen| Value::string(unseen, span)).collect();
            metadata.custom.insert("blind", Value::list(blind, span));
        }
        table
    }
}

/// What cannot be a service's name is a path, or the name of an abstract socket.
fn is_path(name: &str) -> bool {
    name.contains('/') || name.starts_with(['@', '~'])
}

/// The declared sockets of these services, or of all.
fn of_daemon(
    engine: &EngineInterface,
    services: Option<Vec<Spanned<String>>>,
    head: Span,
) -> Result<Vec<SocketRow>, LabeledError> {
    let params = match &services {
        Some(services) => json!({ "names": names_param(services) }),
        None => json!({}),
    };
    let mut daemon = Daemon::running(engine, Blame { head, names: services.unwrap_or_default() })?;
    daemon.ask("socket.check", params)
}

/// Any paths, judged here: whoever listens there will do.
fn of_paths(engine: &EngineInterface, paths: &[Spanned<String>]) -> Vec<SocketRow> {
    if paths.is_empty() {
        return Vec::new();
    }
    let expects: Vec<Expect> = paths
        .iter()
        .map(|path| match path.item.starts_with('@') {
            true => Expect::path(&path.item),
            false => Expect::path(place::path(engine, &path.item)),
        })
        .collect();
    match Auditor::new() {
        Ok(mut auditor) => auditor.audit(&expects).iter().map(found).collect(),
        // A machine that does not show its sockets: nothing is known, and that is what is said.
        Err(problem) => {
            let unknown = |expect: &Expect| SocketRow {
                verdict: Verdict::Unknown.as_str().into(),
                reason: Some(problem.to_string()),
                ..bare_row(&expect.path)
            };
            expects.iter().map(unknown).collect()
        }
    }
}

fn whole_system(head: Span) -> Result<Answer, LabeledError> {
    let report = Auditor::new()
        .and_then(|mut auditor| auditor.system())
        .map_err(|problem| error::audit(&problem, head))?;
    Ok(Answer { rows: report.findings.iter().map(found).collect(), blind: report.blind })
}

fn found(finding: &Finding) -> SocketRow {
    SocketRow {
        verdict: finding.verdict.as_str().into(),
        reason: (!finding.reason.is_empty()).then(|| finding.reason.to_string()),
        pid: finding.holder.as_ref().map(|holder| holder.pid),
        inode: finding.listener.as_ref().map(|listener| listener.inode),
        pending: finding.listener.as_ref().map(|listener| listener.pending),
        backlog: finding.listener.as_ref().map(|listener| listener.backlog),
        ..bare_row(&finding.path)
    }
}

/// The row of a path that no service declares and nobody watches.
fn bare_row(path: &Path) -> SocketRow {
    let whole = path.display().to_string();
    SocketRow {
        service: None,
        socket: path.file_name().map_or_else(|| whole.clone(), |name| name.to_string_lossy().into_owned()),
        path: whole,
        verdict: String::new(),
        reason: None,
        pid: None,
        inode: None,
        pending: None,
        backlog: None,
        since: None,
        culprit: None,
        relinked: 0,
    }
}

/// Why a socket is not ok. Named by its service, which help can show, or by its path.
fn reason(row: &SocketRow) -> (String, String) {
    let name = row.service.clone().unwrap_or_else(|| row.path.clone());
    let why = match &row.reason {
        Some(reason) => format!("{} is {}: {reason}", row.socket, row.verdict),
        None => format!("{} is {}", row.socket, row.verdict),
    };
    (name, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeDaemon, Folder, Nu, at};
    use std::os::unix::net::UnixListener;

    fn verdicts(value: &Value) -> Vec<(String, String)> {
        let text = |row: &Value, column| at(row, &[column]).as_str().unwrap().to_owned();
        value.as_list().unwrap().iter().map(|row| (text(row, "socket"), text(row, "verdict"))).collect()
    }

    fn expected(rows: &[(&str, &str)]) -> Vec<(String, String)> {
        rows.iter().map(|(socket, verdict)| ((*socket).into(), (*verdict).into())).collect()
    }

    #[test]
    fn paths_need_no_daemon() {
        let folder = Folder::new();
        let mut nu = Nu::alone(&folder);
        let place = |name: &str| folder.path().join(name);
        let _served = UnixListener::bind(place("served.sock")).unwrap();
        let lost = UnixListener::bind(place("lost.sock")).unwrap();
        drop(UnixListener::bind(place("stale.sock")).unwrap());
        std::fs::remove_file(place("lost.sock")).unwrap();
        std::fs::write(place("plain.sock"), "").unwrap();
        let rows = nu
            .value("proc socket-check ./served.sock ~/stale.sock ./lost.sock ./plain.sock ./none.sock")
            .unwrap();
        let all = [
            ("served.sock", "ok"),
            ("stale.sock", "stale"),
            ("lost.sock", "dangling"),
            ("plain.sock", "not-socket"),
            ("none.sock", "absent"),
        ];
        assert_eq!(verdicts(&rows), expected(&all));
        let row = rows.as_list().unwrap().first().unwrap();
        assert_eq!(at(row, &["pid"]), Value::test_int(std::process::id().into()));
        assert_eq!(at(row, &["path"]), Value::test_string(place("served.sock").to_str().unwrap()));
        assert!(at(row, &["inode"]).as_int().is_ok());
        assert!(at(row, &["service"]).is_nothing());
        drop(lost);
    }

    #[test]
    fn services_are_asked_from_the_daemon() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let web = [("rpc.sock", "dangling"), ("ui.sock", "ok")];
        assert_eq!(verdicts(&nu.value("proc socket-check web").unwrap()), expected(&web));
        let all = [("redis.sock", "ok"), ("rpc.sock", "dangling"), ("ui.sock", "ok")];
        assert_eq!(verdicts(&nu.value("proc socket-check").unwrap()), expected(&all));
        let mixed = [("rpc.sock", "dangling"), ("ui.sock", "ok"), ("rpc.sock", "ok")];
        assert_eq!(verdicts(&nu.value("proc socket-check ./rpc.sock web").unwrap()), expected(&mixed));
        let before = daemon.requests().len();
        assert_eq!(nu.value("[] | proc socket-check").unwrap(), Value::test_list(vec![]));
        assert_eq!(daemon.requests().len(), before);
    }

    #[test]
    fn its_own_rows_are_input() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let rows = nu.value("proc socket-check web ./rpc.sock | proc socket-check").unwrap();
        assert_eq!(
            verdicts(&rows),
            expected(&[("rpc.sock", "dangling"), ("ui.sock", "ok"), ("rpc.sock", "ok")])
        );
    }

    #[test]
    fn with_fail_a_bad_verdict_is_an_error() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        assert!(nu.value("proc socket-check redis --fail").is_ok());
        let error = nu.error("proc socket-check --fail");
        assert_eq!(error.code.as_deref(), Some("proc::failed"));
        let why = "web: rpc.sock is dangling: nothing is at the path; the listener is alive";
        assert_eq!(error.msg, format!("clients cannot reach: {why}"));
        let error = nu.error("proc socket-check ./none.sock --fail");
        assert!(error.msg.contains("none.sock is absent"), "{}", error.msg);
    }

    #[test]
    fn the_whole_system_is_looked_at() {
        let folder = Folder::new();
        let mut nu = Nu::alone(&folder);
        let path = folder.path().join("lost.sock");
        let _lost = UnixListener::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let rows = nu.value("proc socket-check --system").unwrap();
        assert!(verdicts(&rows).contains(&("lost.sock".into(), "dangling".into())), "{rows:?}");
        assert_eq!(nu.error("proc socket-check --system web").code.as_deref(), Some("proc::bad_input"));
    }
}
