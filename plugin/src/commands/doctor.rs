//! `proc doctor`: what this machine and user let `shimd` do.

use std::path::Path;

use nix::unistd::{AccessFlags, access};
use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Span, Type};
use serde_json::json;
use shimd_api::event::DoctorRow;

use crate::config::Config;
use crate::daemon::Daemon;
use crate::error::{self, Blame};
use crate::plugin::Proc;
use crate::signature::ServiceSignature;
use crate::{launch, look, place, value};

/// `proc doctor`.
pub struct Doctor;

impl PluginCommand for Doctor {
    type Plugin = Proc;

    fn name(&self) -> &str {
        "proc doctor"
    }

    fn description(&self) -> &str {
        "Say what this machine and user let the daemon do, and what to do about the rest."
    }

    fn extra_description(&self) -> &str {
        "A row a check; help is nothing where all is well. Where no daemon can be asked, that is itself a row, and the others
are what can be told without one: this is never an error."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["shimd", "daemon", "diagnose", "health", "setup", "permissions", "capabilities"]
    }

    fn signature(&self) -> Signature {
        Signature::build("proc doctor").services().input_output_type(Type::Nothing, Type::table())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example { example: "proc doctor", description: "Check everything", result: None },
            Example {
                example: "proc doctor | where not ok | select check detail help",
                description: "What is amiss, and what to do",
                result: None,
            },
        ]
    }

    fn run(
        &self,
        _: &Proc,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        _: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        let ask = || -> Result<Vec<DoctorRow>, LabeledError> {
            Daemon::running(engine, Blame::head(call.head))?.ask("shim.doctor", json!({}))
        };
        let rows = match ask() {
            Ok(rows) => rows,
            Err(problem) if error::is_cancelled(&problem) => return Err(problem),
            Err(problem) => alone(engine, problem, call.head),
        };
        Ok(value::table(&rows, call.head))
    }
}

/// What can be told without a daemon, and why there is none.
fn alone(engine: &EngineInterface, problem: LabeledError, head: Span) -> Vec<DoctorRow> {
    let config = Config::of(engine, head);
    // Settings that are wrong are the problem that is told.
    let autostart = config.as_ref().is_ok_and(|config| config.autostart);
    let program = match launch::find(engine) {
        Some(program) if autostart => {
            well("shimd", format!("a command that acts starts {}", program.display()))
        }
        Some(program) => {
            well("shimd", format!("proc shim start, and nothing else, starts {}", program.display()))
        }
        None => ill("shimd", launch::NOT_FOUND.into(), launch::INSTALL.into()),
    };
    let home =
        config.ok().and_then(|config| place::home(engine, &config).ok()).map(|home| writable(&home.state));
    let sockets = match look::possible() {
        Ok(()) => well("sock_diag", "the kernel lists its Unix sockets: proc socket-check PATH works".into()),
        Err(problem) => ill(
            "sock_diag",
            problem.to_string(),
            "let this user and container open NETLINK_SOCK_DIAG sockets: see the seccomp profile, and modprobe unix_diag"
                .into(),
        ),
    };
    let daemon = ill("daemon", problem.msg, problem.help.unwrap_or_default());
    [Some(daemon), Some(program), home, Some(sockets)].into_iter().flatten().collect()
}

/// Whether a daemon of this user's could keep its state there: in the folder, or in a new one.
fn writable(home: &Path) -> DoctorRow {
    let there = home.ancestors().find(|folder| folder.exists()).unwrap_or(home);
    match access(there, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => well("home", format!("state and logs belong into {}", home.display())),
        Err(errno) => ill(
            "home",
            format!("no state can be kept in {}: {}: {}", home.display(), there.display(), errno.desc()),
            "make it writable, or name another folder: $env.SHIMD_HOME = ($env.HOME | path join shim)".into(),
        ),
    }
}

fn well(check: &str, detail: String) -> DoctorRow {
    DoctorRow { check: check.into(), ok: true, detail, help: None }
}

fn ill(check: &str, detail: String, help: String) -> DoctorRow {
    DoctorRow { check: check.into(), ok: false, detail, help: Some(help) }
}

#[cfg(test)]
mod tests {
    use crate::testing::{FakeDaemon, Folder, Manner, Nu, at};
    use nu_protocol::Value;

    fn checks(rows: &Value) -> Vec<(String, bool)> {
        let rows = rows.as_list().unwrap();
        let check = |row| at(row, &["check"]).as_str().unwrap().to_owned();
        rows.iter().map(|row| (check(row), at(row, &["ok"]).as_bool().unwrap())).collect()
    }

    #[test]
    fn the_daemon_knows_best() {
        let daemon = FakeDaemon::start();
        let rows = Nu::at(&daemon).value("proc doctor").unwrap();
        assert_eq!(checks(&rows), [("sock_diag".into(), true), ("fanotify".into(), false)]);
        let [well, ill] = rows.as_list().unwrap() else { panic!("{rows:?}") };
        assert!(at(well, &["help"]).is_nothing());
        assert_eq!(at(ill, &["help"]), Value::test_string("run shimd as root"));
    }

    #[test]
    fn without_a_daemon_it_is_no_error() {
        let folder = Folder::new();
        let mut nu = Nu::alone(&folder);
        nu.set("PATH", "/nonexistent");
        let rows = nu.value("proc doctor").unwrap();
        let [(daemon, false), (program, _), (home, true), (sockets, true)] = &checks(&rows)[..] else {
            panic!("{rows:?}")
        };
        assert_eq!([daemon.as_str(), program, home, sockets], ["daemon", "shimd", "home", "sock_diag"]);
        let first = rows.as_list().unwrap().first().unwrap();
        assert!(at(first, &["detail"]).as_str().unwrap().starts_with("no shimd answers at "));
        assert!(at(first, &["help"]).as_str().unwrap().contains("proc shim start"));
        nu.set("SHIMD_HOME", "here");
        let rows = nu.value("proc doctor").unwrap();
        let first = rows.as_list().unwrap().first().unwrap();
        assert!(at(first, &["detail"]).as_str().unwrap().starts_with("SHIMD_HOME is a relative path"));
    }

    #[test]
    fn a_daemon_that_cannot_be_talked_to_is_a_row() {
        for (manner, part) in
            [(Manner::Version("9.0.0"), "is 9.0.0"), (Manner::Hang, "did not answer shim.doctor")]
        {
            let daemon = FakeDaemon::with(manner);
            let rows = Nu::at(&daemon).value("proc doctor").unwrap();
            let first = rows.as_list().unwrap().first().unwrap();
            assert!(at(first, &["detail"]).as_str().unwrap().contains(part), "{rows:?}");
        }
    }
}
