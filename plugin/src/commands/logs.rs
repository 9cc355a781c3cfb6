//! `proc logs`: what a service wrote, and what it writes.

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Span, SyntaxShape, Type, Value, record};
use serde_json::{Value as Json, json};

use crate::daemon::Daemon;
use crate::error::Blame;
use crate::flags::Flags;
use crate::input::Names;
use crate::live::Live;
use crate::log::Log;
use crate::pace::paced;
use crate::plugin::Proc;
use crate::signature::ServiceSignature;
use crate::{text, value};

/// `proc logs`.
pub struct Logs;

impl PluginCommand for Logs {
    type Plugin = Proc;

    fn name(&self) -> &str {
        "proc logs"
    }

    fn description(&self) -> &str {
        "Show what a service writes to its standard output and standard error."
    }

    fn extra_description(&self) -> &str {
        "Without --lines and --since the last 100 lines are given; with --since all from then on. time is when a line was
written, to about 100 ms, and empty where shimd did not run then. Lines of out and err come in the order of their times.

With --follow new lines come as they are written, until Ctrl-C, over restarts of the service and rotation of its log. A
table on a terminal shows lines that come close together about a second later: --raw gives text instead, each line at once.

--raw gives the bytes as they were written. In a row, bytes that are not UTF-8 are replaced, and of a line over 64 KiB
the beginning is given, and how long it is."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["service", "journal", "output", "stdout", "stderr", "tail", "journalctl"]
    }

    crate::completes!(Services);

    fn signature(&self) -> Signature {
        Signature::build("proc logs")
            .services()
            .names("The service: one name.")
            .named("lines", SyntaxShape::Int, "So many lines of the past, the latest.", Some('n'))
            .switch("follow", "Go on with new lines as they are written.", Some('f'))
            .named("since", SyntaxShape::Duration, "Only of so long ago until now.", Some('s'))
            .switch("raw", "The bytes as they were written.", Some('r'))
            .takes_names(Type::one_of([Type::table(), Type::String, Type::Binary]))
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                example: "proc logs web --lines 2",
                description: "The last that a service wrote",
                result: Some(Value::test_list(vec![
                    row(Some("2026-01-02T03:04:05.678Z"), "out", "listening"),
                    row(Some("2026-01-02T03:04:06.1Z"), "err", "rpc.sock: no such file"),
                ])),
            },
            Example {
                example: "proc logs web --follow --raw",
                description: "See on a terminal what a service writes, as it writes it",
                result: None,
            },
            Example {
                example: "proc logs web --since 1hr | where stream == err",
                description: "An hour's errors",
                result: None,
            },
            Example {
                example: "proc logs web --follow --lines 0 | where line =~ listening | first",
                description: "Wait until a service says that it listens",
                result: None,
            },
            Example {
                example: "proc list | where status == failed | each { |it| proc logs $it.name --lines 5 } | flatten",
                description: "The last words of all that failed",
                result: None,
            },
            Example {
                example: "proc logs web --since 1day --raw | save web.log",
                description: "A day's log, byte for byte",
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
        let (head, raw) = (call.head, call.switch("raw")?);
        let name = Names::read(call, input)?.only(self.name(), head)?;
        let params = params(call, &name.item, raw)?;
        let blame = Blame { head, names: vec![name] };
        let open = |stop: &_| Log::open(Daemon::running(engine, blame)?, params, stop);
        Ok(match raw {
            true => {
                let live = Live::open(plugin, engine, |stop| Ok(Box::new(open(stop)?.bytes())))?;
                text::bytes(live, &plugin.readers, head)
            }
            false => {
                let live = Live::open(plugin, engine, |stop| Ok(Box::new(open(stop)?.rows())))?;
                value::stream(paced(live, engine)?, head)
            }
        })
    }
}

fn params(call: &EvaluatedCall, name: &str, raw: bool) -> Result<Json, LabeledError> {
    let mut params = json!({ "name": name, "raw": raw, "follow": call.switch("follow")? });
    for flag in ["lines", "since"] {
        if let Some(given) = call.not_negative(flag, "proc logs NAME --since 1hr, or --lines 10")? {
            params[flag] = given.into();
        }
    }
    Ok(params)
}

fn row(time: Option<&str>, stream: &str, line: &str) -> Value {
    let span = Span::test_data();
    Value::test_record(record! {
        "time" => time.map_or_else(|| Value::nothing(span), |time| value::time(time, span)),
        "stream" => Value::test_string(stream),
        "line" => Value::test_string(line),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeDaemon, Folder, Manner, Nu, at};

    fn lines(rows: &[Value]) -> Vec<String> {
        rows.iter().map(|row| at(row, &["line"]).into_string().unwrap()).collect()
    }

    #[test]
    fn the_examples_hold() {
        let daemon = FakeDaemon::start();
        Nu::at(&daemon).examples_hold(&Logs);
    }

    #[test]
    fn what_is_asked_for_is_sent() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let all = nu.value("proc logs web").unwrap().into_list().unwrap();
        assert_eq!(lines(&all), ["starting", "listening", "rpc.sock: no such file"]);
        assert!(at(&all[0], &["time"]).is_nothing());
        nu.value("{service: web} | proc logs --since 1hr --lines 5").unwrap();
        let params = json!({ "name": "web", "raw": false, "follow": false, "lines": 5, "since": 3_600_000_000_000_i64 });
        assert_eq!(daemon.requests().last().unwrap(), &json!({ "method": "log.stream", "params": params }));
        nu.value("[{name: web}] | proc logs").unwrap();
    }

    #[test]
    fn raw_is_what_was_written() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let text = nu.value("proc logs redis --raw").unwrap();
        assert_eq!(text, Value::test_string("starting\nready\n"));
        let bytes = nu.value("proc logs web --raw").unwrap();
        assert_eq!(bytes, Value::test_binary(b"listening\n\xff\n"));
    }

    #[test]
    fn followers_see_each_line_as_it_is_written() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let mut rows = nu.stream("proc logs web --follow --lines 1");
        assert_eq!(lines(&[rows.next().unwrap()]), ["rpc.sock: no such file"], "the past comes first");
        daemon.write(json!({ "rows": [{ "time": null, "stream": "out", "line": "a" }, { "time": null,
            "stream": "err", "line": "b" }] }));
        assert_eq!(lines(&[rows.next().unwrap(), rows.next().unwrap()]), ["a", "b"]);
        daemon.end_streams();
        let Some(Value::Error { error, .. }) = rows.next() else { panic!("no error") };
        let error = LabeledError::from(*error);
        assert_eq!(error.code.as_deref(), Some("proc::no_daemon"));
        assert!(error.msg.starts_with("shimd ended in the midst of the log"), "{}", error.msg);
        assert!(rows.next().is_none());
    }

    #[test]
    fn an_error_of_the_daemons_ends_a_log() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        for (news, code) in [
            (
                json!({ "error": { "code": -32603, "message": "the disk",
            "data": { "kind": "internal" } } }),
                "proc::internal",
            ),
            (json!({ "rows": 5 }), "proc::version"),
        ] {
            let mut rows = nu.stream("proc logs web --follow --lines 0");
            daemon.write(news);
            let Some(Value::Error { error, .. }) = rows.next() else { panic!("no error") };
            assert_eq!(LabeledError::from(*error).code.as_deref(), Some(code));
            assert!(rows.next().is_none());
        }
    }

    #[test]
    fn mistakes_are_labelled() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        for flags in ["", "--follow", "--raw", "--raw --follow"] {
            let error = nu.error(&format!("proc logs nowhere {flags}"));
            assert_eq!(error.code.as_deref(), Some("proc::unknown_service"));
            assert_eq!(nu.labelled_text(&error), "nowhere");
            assert!(error.help.is_some());
        }
        let error = nu.error("proc logs web redis");
        assert_eq!(
            (error.code.as_deref(), nu.labelled_text(&error)),
            (Some("proc::bad_input"), "redis".into())
        );
        for source in
            ["proc logs", "[] | proc logs", "proc logs web --since=-1hr", "proc logs web --lines=-1"]
        {
            assert_eq!(nu.error(source).code.as_deref(), Some("proc::bad_input"), "{source}");
        }
        let folder = Folder::new();
        for source in ["proc logs web", "proc logs web --follow --raw"] {
            assert_eq!(Nu::alone(&folder).error(source).code.as_deref(), Some("proc::no_daemon"), "{source}");
        }
        let hangs = FakeDaemon::with(Manner::Hang);
        assert_eq!(Nu::at(&hangs).error("proc logs web").code.as_deref(), Some("proc::timeout"));
    }
}
