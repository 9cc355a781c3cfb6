//! `proc socket-check`: kernel truth against directory truth.

use std::io::IsTerminal;
use std::path::PathBuf;

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Span, Spanned, Type, Value};
use serde_json::{Value as Json, json};
use shimd_api::wire::SocketRow;
use socket_audit::Verdict;

use crate::daemon::Daemon;
use crate::error::{self, Blame};
use crate::flags::Flags;
use crate::input::{Names, names_param};
use crate::live::{Live, Source, merge};
use crate::look::{self, System};
use crate::pace::paced;
use crate::plugin::Proc;
use crate::signature::ServiceSignature;
use crate::stop::Stop;
use crate::watch::Watch;
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
process listens there); stale (a file that nobody listens on); not-socket; absent; wedged; denied; or unknown.

With --watch a row for each change of verdict follows, as it happens, until Ctrl-C. Of services the daemon tells them; paths
and --system are looked at twice a second, and a listener of --system that is in order again is a row with verdict ok. A
table on a terminal shows rows that come close together about a second later."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["unix", "listener", "audit", "verdict", "dangling", "ss", "lsof"]
    }

    crate::completes!(Sockets);

    fn signature(&self) -> Signature {
        Signature::build("proc socket-check")
            .services()
            .names("Services, or paths of sockets; all sockets of all services if none is named.")
            .switch(
                "system",
                "Every named listener of this machine that clients cannot reach by its name.",
                Some('s'),
            )
            .switch("watch", "Go on with a row for each change of verdict.", Some('w'))
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
            Example {
                example: "proc socket-check --watch | each {|it| print $'($it.socket) ($it.verdict) ($it.reason)' }",
                description: "See each change as it happens",
                result: None,
            },
            Example {
                example: "proc socket-check web --watch | where verdict == ok | first",
                description: "Wait until clients can reach one of a service's sockets",
                result: None,
            },
        ]
    }

    fn run(
        &self,
        plugin: &Proc,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        input: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        // Rows of this very command name a service, or else are of a bare path.
        let names = Names::read_columns(call, input, &["name", "service", "path"])?;
        let wanted = Wanted::read(engine, names, call.switch("system")?, call.head)?;
        if !call.switch("watch")? {
            return wanted.once(engine, call);
        }
        match call.named.iter().find(|(flag, _)| flag.item == "fail") {
            Some((fail, _)) => Err(error::bad_input(
                "--watch goes on where --fail would end".into(),
                "not together with --watch",
                fail.span,
                "leave out either, or say what ends it: proc socket-check --watch | where verdict != ok | first",
            )),
            None => wanted.watch(plugin, engine, call.head),
        }
    }
}

/// What is to be looked at.
enum Wanted {
    /// The machine.
    System,
    /// Sockets of services, if any, and paths.
    Named { services: Option<Services>, paths: Vec<PathBuf>, names: Vec<Spanned<String>> },
}

/// Services by name; all of them if none is named.
type Services = Vec<Spanned<String>>;

impl Wanted {
    fn read(
        engine: &EngineInterface,
        names: Names,
        system: bool,
        head: Span,
    ) -> Result<Wanted, LabeledError> {
        match (system, names) {
            (true, Names::NotGiven) => Ok(Wanted::System),
            (true, Names::Given(names)) => Err(error::bad_input(
                "--system looks at everything".into(),
                "not at this alone",
                names.first().map_or(head, |name| name.span),
                "leave out either --system or the names",
            )),
            (false, Names::NotGiven) => {
                Ok(Wanted::Named { services: Some(Vec::new()), paths: Vec::new(), names: Vec::new() })
            }
            (false, Names::Given(names)) => {
                let (paths, services): (Vec<_>, Vec<_>) =
                    names.iter().cloned().partition(|name| is_path(&name.item));
                let paths = paths.iter().map(|path| match path.item.starts_with('@') {
                    true => PathBuf::from(&path.item),
                    false => place::path(engine, &path.item),
                });
                let services = (!services.is_empty()).then_some(services);
                Ok(Wanted::Named { services, paths: paths.collect(), names })
            }
        }
    }

    /// How it is.
    fn once(self, engine: &EngineInterface, call: &EvaluatedCall) -> Result<PipelineData, LabeledError> {
        let (rows, blind, names) = match self {
            Wanted::System => {
                let System { rows, blind, .. } = look::system(call.head)?;
                (rows, blind, Vec::new())
            }
            Wanted::Named { services, paths, names } => {
                let mut rows: Vec<SocketRow> = match services {
                    None => Vec::new(),
                    Some(services) => {
                        let (mut daemon, params) = of_daemon(engine, services, call.head)?;
                        daemon.ask("socket.check", params)?
                    }
                };
                rows.extend(look::paths(paths.into_iter()));
                (rows, Vec::new(), names)
            }
        };
        if call.switch("fail")? {
            let bad = rows.iter().filter(|row| row.verdict != Verdict::Ok.as_str());
            let blame = Blame { head: call.head, names };
            error::fail_if_any("clients cannot reach", bad.map(reason), &blame)?;
        }
        Ok(told(value::table(&rows, call.head), &blind, call.head))
    }

    /// How it is, and how it changes.
    fn watch(
        self,
        plugin: &Proc,
        engine: &EngineInterface,
        head: Span,
    ) -> Result<PipelineData, LabeledError> {
        let mut blind = Vec::new();
        let open = |stop: &Stop| -> Result<Source<SocketRow>, LabeledError> {
            let mut sources: Vec<Source<SocketRow>> = Vec::new();
            match self {
                Wanted::System => {
                    let mut seen = look::system(head)?;
                    blind = std::mem::take(&mut seen.blind);
                    sources.push(Box::new(look::watch_system(seen, head, stop)));
                }
                Wanted::Named { services, paths, .. } => {
                    if let Some(services) = services {
                        let (daemon, params) = of_daemon(engine, services, head)?;
                        sources.push(Box::new(Watch::open(daemon, params, stop)?));
                    }
                    if !paths.is_empty() {
                        sources.push(Box::new(look::watch_paths(paths.into_iter(), stop)));
                    }
                }
            }
            Ok(merge(sources))
        };
        let live = Live::open(plugin, engine, open)?;
        Ok(told(value::stream(paced(live, engine)?, head), &blind, head))
    }
}

/// The daemon, and the params that name these services.
fn of_daemon(
    engine: &EngineInterface,
    services: Services,
    head: Span,
) -> Result<(Daemon<'_>, Json), LabeledError> {
    let params = match services.is_empty() {
        true => json!({}),
        false => json!({ "names": names_param(&services) }),
    };
    Ok((Daemon::running(engine, Blame { head, names: services })?, params))
}

/// The rows. What was not seen is told on a terminal, and carried in the metadata (`blind`) for a script.
fn told(mut rows: PipelineData, blind: &[String], span: Span) -> PipelineData {
    if std::io::stderr().is_terminal() {
        for unseen in blind {
            eprintln!("not seen: {unseen}");
        }
    }
    if let PipelineData::Value(_, Some(metadata)) | PipelineData::ListStream(_, Some(metadata)) = &mut rows
        && !blind.is_empty()
    {
        let blind = blind.iter().map(|unseen| Value::string(unseen, span)).collect();
        metadata.custom.insert("blind", Value::list(blind, span));
    }
    rows
}

/// What cannot be a service's name is a path, or the name of an abstract socket.
pub(super) fn is_path(name: &str) -> bool {
    name.contains('/') || name.starts_with(['@', '~'])
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
    use crate::testing::{FakeDaemon, Folder, Manner, Nu, at};
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

    fn told(row: &Value) -> (String, String) {
        let text = |column| at(row, &[column]).as_str().unwrap().to_owned();
        (text("socket"), text("verdict"))
    }

    #[test]
    fn a_watch_of_services_gives_each_change() {
        let daemon = FakeDaemon::with(Manner::Live);
        let mut rows = Nu::at(&daemon).stream("proc socket-check web --watch");
        let mut next = || rows.next().unwrap();
        assert_eq!([told(&next()), told(&next())], [("rpc.sock", "dangling"), ("ui.sock", "ok")].map(owned));
        // The daemon's rows say dangling all the time: the event says what was in between.
        let back = next();
        assert_eq!(told(&back), owned(("rpc.sock", "ok")));
        assert_eq!(at(&back, &["since"]).as_date().unwrap().to_rfc3339(), "2026-01-02T03:10:00+00:00");
        assert!(at(&back, &["pending"]).is_nothing() && at(&back, &["reason"]).is_nothing());
        let lost = next();
        assert_eq!(told(&lost), owned(("rpc.sock", "dangling")));
        assert_eq!(at(&lost, &["backlog"]), Value::test_int(128), "the row of now");
        let who = json!({ "pid": 1, "name": "tidy", "exe": null, "uid": 7 });
        let path = "/run/sockets/web/rpc.sock";
        daemon.emit(json!({ "time": "2026-01-02T03:10:02Z", "service": "web", "kind": "culprit",
            "detail": { "socket": "rpc.sock", "path": path, "verdict": "dangling", "culprit": who } }));
        assert_eq!(at(&next(), &["culprit", "name"]), Value::test_string("tidy"));
        // A service that is gone by the time that its row is asked for.
        daemon.emit(json!({ "time": "2026-01-02T03:10:03Z", "service": "old", "kind": "verdict",
            "detail": { "socket": "a.sock", "path": "/run/a.sock", "verdict": "absent", "was": "ok" } }));
        let gone = next();
        assert_eq!(told(&gone), owned(("a.sock", "absent")));
        assert_eq!(at(&gone, &["service"]), Value::test_string("old"));
        daemon.end_streams();
        let Some(Value::Error { error, .. }) = rows.next() else { panic!("no error") };
        assert_eq!(LabeledError::from(*error).code.as_deref(), Some("proc::no_daemon"));
        let follow = &daemon.requests()[0];
        assert_eq!(follow["params"], json!({ "names": ["web"], "kinds": ["verdict", "culprit"] }));
    }

    #[test]
    fn what_the_first_rows_show_is_no_change() {
        let daemon = FakeDaemon::start();
        let mut rows = Nu::at(&daemon).stream("proc socket-check web --watch").skip(2);
        let event = |time: &str, verdict: &str| {
            daemon.emit(json!({ "time": time, "service": "web", "kind": "verdict",
                "detail": { "socket": "rpc.sock", "path": "/run/sockets/web/rpc.sock", "verdict": verdict } }));
        };
        event("2026-01-02T03:04:05.1Z", "ok");
        event("2026-01-02T03:04:05.678Z", "dangling");
        event("2026-01-02T03:04:06Z", "replaced");
        assert_eq!(told(&rows.next().unwrap()), owned(("rpc.sock", "replaced")));
        // Events were lost: the rows say what is now.
        daemon.emit(json!({ "time": "2026-01-02T03:04:07Z", "service": null, "kind": "gap", "detail": {} }));
        assert_eq!(told(&rows.next().unwrap()), owned(("rpc.sock", "dangling")));
    }

    #[test]
    fn services_and_paths_are_watched_together() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let rows = nu.stream("proc socket-check redis ./my.sock --watch");
        let mut rows = rows.map(|row| told(&row));
        let mut first = [rows.next().unwrap(), rows.next().unwrap()];
        first.sort();
        assert_eq!(first, [("my.sock", "absent"), ("redis.sock", "ok")].map(owned));
        let _listener = UnixListener::bind(daemon.home().join("my.sock")).unwrap();
        assert_eq!(rows.next().unwrap(), owned(("my.sock", "ok")));
        daemon.emit(json!({ "time": "2026-01-02T04:00:00Z", "service": "redis", "kind": "verdict",
            "detail": { "path": "/run/sockets/redis/redis.sock", "verdict": "wedged", "was": "ok" } }));
        assert_eq!(rows.next().unwrap(), owned(("redis.sock", "wedged")));
    }

    #[test]
    fn a_watch_has_no_failure() {
        let folder = Folder::new();
        let mut nu = Nu::alone(&folder);
        let error = nu.error("proc socket-check ./a.sock --watch --fail");
        assert_eq!(error.code.as_deref(), Some("proc::bad_input"));
        assert_eq!(nu.labelled_text(&error), "--fail");
    }

    fn owned((socket, verdict): (&str, &str)) -> (String, String) {
        (socket.into(), verdict.into())
    }
}
