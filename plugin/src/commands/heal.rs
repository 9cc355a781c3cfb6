//! `proc heal`: lost sockets put back without a restart.

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Span, Spanned, Type, Value, record};
use serde_json::{Value as Json, json};
use shimd_api::wire::{HealOutcome, HealRow};

use super::socket_check::is_path;
use crate::daemon::Daemon;
use crate::error::{self, Blame};
use crate::flags::Flags;
use crate::input::{Names, names_param};
use crate::plugin::Proc;
use crate::progress::ProgressLine;
use crate::signature::ServiceSignature;
use crate::{place, value};

/// `proc heal`.
pub struct Heal;

impl PluginCommand for Heal {
    type Plugin = Proc;

    fn name(&self) -> &str {
        "proc heal"
    }

    fn description(&self) -> &str {
        "Put sockets back whose file is gone while their process still listens, without a restart."
    }

    fn extra_description(&self) -> &str {
        "Takes rows of proc socket-check, paths, or names of services (all their sockets). What holds a / is a path, which need not
belong to any service.

outcome is relinked: the file is back and nothing else is to be done; bridged: a process of shimd listens at the path and
passes each connection on to the process that has lost it, until that is restarted or ends; or not_possible, and reason
says why. A bridge takes a shimd that runs as root, and a stream socket. It carries its clients' user and groups, but neither
their pid nor descriptors."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["unix", "socket", "dangling", "relink", "bridge", "repair", "fix"]
    }

    crate::completes!(Sockets);

    fn signature(&self) -> Signature {
        Signature::build("proc heal")
            .services()
            .names("Paths of sockets, or services.")
            .fail_flag("A socket that cannot be healed is an error.")
            .quiet_flag()
            .takes_names(Type::table())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                example: "proc socket-check --system | where verdict == dangling | proc heal",
                description: "Put back whatever has lost its socket on this machine",
                result: None,
            },
            Example {
                example: "proc heal /run/dbus/system_bus_socket",
                description: "Put one socket back",
                result: Some(Value::test_list(vec![Value::test_record(record! {
                    "path" => Value::test_string("/run/dbus/system_bus_socket"),
                    "outcome" => Value::test_string("bridged"),
                    "reason" => Value::test_string("bridged: connections are passed on"),
                })])),
            },
            Example {
                example: "proc list | where status == failed | proc heal | where outcome == not_possible",
                description: "What is lost for good until it is restarted",
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
        // A row of a socket is of that socket alone, though it names the service too.
        let names = Names::read_columns(call, input, &["path", "name", "service"])?;
        let names = given(names, call.head)?;
        if names.is_empty() {
            return Ok(value::table::<HealRow>(&[], call.head));
        }
        let params = params(engine, &names);
        let blame = Blame { head: call.head, names };
        let mut daemon = Daemon::started(engine, blame.clone(), ProgressLine::of(call)?)?;
        let rows: Vec<HealRow> = daemon.ask("socket.heal", params)?;
        if call.switch("fail")? {
            let bad = rows.iter().filter(|row| row.outcome == HealOutcome::NotPossible);
            let why = |row: &HealRow| (row.path.clone(), row.reason.clone().unwrap_or_default());
            error::fail_if_any("cannot be healed", bad.map(why), &blame)?;
        }
        Ok(value::table(&rows, call.head))
    }
}

fn given(names: Names, head: Span) -> Result<Vec<Spanned<String>>, LabeledError> {
    match names {
        Names::Given(names) => Ok(names),
        Names::NotGiven => Err(error::bad_input(
            "proc heal needs to know which sockets".into(),
            "no path as argument, and nothing in the pipeline",
            head,
            "proc heal PATH, or for all that is lost: proc socket-check --system | where verdict == dangling | proc heal",
        )),
    }
}

fn params(engine: &EngineInterface, names: &[Spanned<String>]) -> Json {
    let (paths, services): (Vec<_>, Vec<_>) = names.iter().cloned().partition(|name| is_path(&name.item));
    let absolute = |path: &Spanned<String>| match path.item.starts_with('@') {
        true => path.item.clone(),
        false => place::path(engine, &path.item).display().to_string(),
    };
    let mut params = json!({});
    if !paths.is_empty() {
        params["paths"] = paths.iter().map(absolute).collect();
    }
    if !services.is_empty() {
        params["names"] = names_param(&services);
    }
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeDaemon, Nu, at};

    #[test]
    fn the_examples_hold() {
        let daemon = FakeDaemon::start();
        Nu::at(&daemon).examples_hold(&Heal);
    }

    #[test]
    fn rows_of_sockets_are_their_paths_and_rows_of_services_their_names() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let last = || daemon.requests().last().unwrap()["params"].clone();
        nu.value("proc socket-check web | proc heal").unwrap();
        assert_eq!(last(), json!({ "paths": ["/run/sockets/web/rpc.sock", "/run/sockets/web/ui.sock"] }));
        nu.value("proc list | proc heal").unwrap();
        assert_eq!(last(), json!({ "names": ["redis", "web"] }));
        nu.value("proc heal web ./x.sock").unwrap();
        assert_eq!(last()["names"], json!(["web"]));
        assert!(last()["paths"][0].as_str().unwrap().starts_with('/'));
        let before = daemon.requests().len();
        assert_eq!(nu.value("[] | proc heal").unwrap(), Value::test_list(vec![]));
        assert_eq!(daemon.requests().len(), before, "nothing is asked for nothing");
    }

    #[test]
    fn with_fail_what_cannot_be_healed_is_an_error() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let rows = nu.value("proc heal /run/ok.sock").unwrap();
        let row = rows.as_list().unwrap().first().unwrap();
        assert_eq!(at(row, &["outcome"]), Value::test_string("not_possible"));
        let error = nu.error("proc heal /run/ok.sock /run/lost.sock --fail");
        assert_eq!(error.code.as_deref(), Some("proc::failed"));
        assert_eq!(error.msg, "cannot be healed: /run/ok.sock: it is ok: nothing is lost");
        assert_eq!(error.labels.len(), 1);
        let error = nu.error("proc heal");
        assert_eq!(error.code.as_deref(), Some("proc::bad_input"));
    }
}
