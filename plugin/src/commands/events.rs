//! `proc events`: what happened to services and their sockets.

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Span, SyntaxShape, Type, Value, record};
use serde_json::Value as Json;
use shimd_api::event::EventRow;

use crate::colours::Palette;
use crate::daemon::Daemon;
use crate::error::Blame;
use crate::flags::Flags;
use crate::input::{Names, names_param};
use crate::line::line;
use crate::live::Live;
use crate::pace::paced;
use crate::plugin::Proc;
use crate::signature::ServiceSignature;
use crate::{follow, text, value};

/// `proc events`.
pub struct Events;

impl PluginCommand for Events {
    type Plugin = Proc;

    fn name(&self) -> &str {
        "proc events"
    }

    fn description(&self) -> &str {
        "Show what happened to services and their sockets: when, what, why, and by whom."
    }

    fn extra_description(&self) -> &str {
        "kind is verdict (a socket's changed), culprit (who did it became known later), state (a service's changed), control
(the daemon's own socket was lost or put back), or gap (a reader that was too slow missed some). detail holds what
applies: socket, path, verdict, status, was, lasted (how long it was that), reason, pid, and culprit, a record.

With --follow new events come as they happen, until Ctrl-C; --since or --limit puts those of the past before them. A
table on a terminal shows rows that come close together about a second later: --raw gives text instead, an event a line,
each at once; on a terminal in colours, which $env.config.plugins.proc.colours sets."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["service", "journal", "history", "log", "tail", "watch", "audit", "culprit"]
    }

    crate::completes!(Services);

    fn signature(&self) -> Signature {
        Signature::build("proc events")
            .services()
            .names("Services; all of them, and the daemon itself, if none is named.")
            .switch("follow", "Go on with new events as they happen.", Some('f'))
            .named("since", SyntaxShape::Duration, "Only of so long ago until now.", Some('s'))
            .switch("raw", "Text, an event a line.", Some('r'))
            .named("limit", SyntaxShape::Int, "At most so many of the past, the latest.", Some('l'))
            .takes_names(Type::one_of([Type::table(), Type::String]))
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                example: "proc events web --limit 1",
                description: "The last that happened to a service",
                result: Some(Value::test_list(vec![Value::test_record(record! {
                    "time" => value::time("2026-01-02T03:04:05.678Z", Span::test_data()),
                    "service" => Value::test_string("web"),
                    "kind" => Value::test_string("verdict"),
                    "detail" => Value::test_record(record! {
                        "socket" => Value::test_string("rpc.sock"),
                        "path" => Value::test_string("/run/sockets/web/rpc.sock"),
                        "verdict" => Value::test_string("dangling"),
                        "was" => Value::test_string("ok"),
                        "lasted" => Value::test_duration(182_000_000_000),
                        "reason" => Value::test_string("nothing is at the path; the listener is alive"),
                        "pid" => Value::test_int(4712),
                        "culprit" => Value::test_record(record! {
                            "pid" => Value::test_int(99),
                            "name" => Value::test_string("rm"),
                            "exe" => Value::test_string("/usr/bin/rm"),
                            "uid" => Value::test_int(0),
                        }),
                    }),
                })])),
            },
            Example {
                example: "proc events --since 1day | where kind == verdict | get detail | select path was? verdict lasted?",
                description: "A day's changes of verdict, and how long each socket had been as it was",
                result: None,
            },
            Example {
                example: "proc events --follow --raw",
                description: "See on a terminal what happens, as it happens",
                result: None,
            },
            Example {
                example: "proc events web --follow | where kind == verdict | first",
                description: "Wait until a socket of a service is lost, or back",
                result: None,
            },
            Example {
                example: "proc list | where status == failed | proc events --since 1hr",
                description: "What led there",
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
        let (head, raw, follow) = (call.head, call.switch("raw")?, call.switch("follow")?);
        let (names, past) = (Names::read(call, input)?, Past::read(call)?);
        let (names_param, names) = match names {
            Names::NotGiven => (None, Vec::new()),
            Names::Given(names) if names.is_empty() => return Ok(nothing(plugin, raw, head)),
            Names::Given(names) => (Some(names_param(&names)), names),
        };
        let blame = Blame { head, names };
        let palette = if raw { Palette::of(engine, head)? } else { Palette::default() };
        let line = move |event: EventRow| line(&event, &palette);
        if !follow {
            let rows: Vec<EventRow> =
                Daemon::running(engine, blame)?.ask("event.list", past.of_list(names_param))?;
            return Ok(match raw {
                true => text::stream(rows.into_iter().map(line).map(Ok), &plugin.readers, head),
                false => value::table(&rows, head),
            });
        }
        let live = Live::open(plugin, engine, |stop| {
            let daemon = Daemon::running(engine, blame)?;
            let events = follow::Events::follow(daemon, past.of_follow(names_param), stop)?;
            Ok(Box::new(events.past_at_most(past.at_most())))
        })?;
        Ok(match raw {
            true => text::stream(live.map(move |event| event.map(&line)), &plugin.readers, head),
            false => value::stream(paced(live, engine)?, head),
        })
    }
}

fn nothing(plugin: &Proc, raw: bool, head: Span) -> PipelineData {
    match raw {
        true => text::stream(std::iter::empty(), &plugin.readers, head),
        false => value::table::<EventRow>(&[], head),
    }
}

/// How much of the past is asked for.
struct Past {
    /// In nanoseconds, back from now.
    since: Option<i64>,
    limit: Option<i64>,
}

impl Past {
    fn read(call: &EvaluatedCall) -> Result<Past, LabeledError> {
        let number = |flag| call.not_negative(flag, "proc events --since 1hr, or --limit 10");
        Ok(Past { since: number("since")?, limit: number("limit")? })
    }

    /// The params of `event.list`.
    fn of_list(&self, names: Option<Json>) -> Json {
        params([
            ("names", names),
            ("since", self.since.map(Json::from)),
            ("limit", self.limit.map(Json::from)),
        ])
    }

    /// The params of `event.follow`. Of the past that gives only what is since some time, and all of that: the limit is
    /// kept here, and the latest of a limit alone are the latest of all time. Without either, only what is new comes.
    fn of_follow(&self, names: Option<Json>) -> Json {
        let since = self.since.or(self.limit.map(|_| i64::MAX));
        params([("names", names), ("since", since.map(Json::from)), ("limit", None)])
    }

    /// How many past events a follower gets at most.
    fn at_most(&self) -> usize {
        match (self.since, self.limit) {
            (None, None) => 0,
            (Some(_), None) => usize::MAX,
            (_, Some(limit)) => usize::try_from(limit).unwrap_or(usize::MAX),
        }
    }
}

fn params(given: [(&str, Option<Json>); 3]) -> Json {
    given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeDaemon, Folder, Manner, Nu, at};
    use serde_json::json;

    fn times(rows: &[Value]) -> Vec<String> {
        rows.iter().map(|row| at(row, &["time"]).as_date().unwrap().format("%H:%M:%S").to_string()).collect()
    }

    #[test]
    fn the_examples_hold() {
        let daemon = FakeDaemon::start();
        Nu::at(&daemon).examples_hold(&Events);
    }

    #[test]
    fn what_is_asked_for_is_sent() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let all = nu.value("proc events").unwrap().into_list().unwrap();
        assert_eq!(times(&all), ["03:00:00", "03:04:05"]);
        let [up, _] = &all[..] else { panic!("{all:?}") };
        let columns: Vec<String> = at(up, &["detail"]).as_record().unwrap().columns().cloned().collect();
        assert_eq!(columns, ["status", "was", "lasted", "pid"], "only what applies");
        nu.value("{service: web} | proc events --since 1hr --limit 5").unwrap();
        let before = daemon.requests();
        let params = json!({ "names": ["web"], "since": 3_600_000_000_000_i64, "limit": 5 });
        assert_eq!(before.last().unwrap(), &json!({ "method": "event.list", "params": params }));
        assert_eq!(nu.value("[] | proc events --follow").unwrap(), Value::test_list(vec![]));
        assert_eq!(daemon.requests().len(), before.len(), "an empty table asks for nothing");
    }

    #[test]
    fn raw_is_a_line_an_event() {
        let daemon = FakeDaemon::with(Manner::Live);
        let mut nu = Nu::at(&daemon);
        let text = nu.value("proc events --raw").unwrap().into_string().unwrap();
        let [up, lost] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert!(up.ends_with("  redis  state  starting -> running after 40ms"), "{up}");
        let told = "  web  verdict  rpc.sock ok -> dangling after 3min 2sec: nothing is at the path; the listener is \
                    alive [by rm (pid 99, uid 0)]";
        assert!(lost.ends_with(told) && text.ends_with('\n'), "{lost}");
        assert_eq!(nu.value("[] | proc events --raw").unwrap(), Value::test_string(""));
    }

    #[test]
    fn followers_see_each_event_as_it_happens() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let mut rows = nu.stream("proc events web --follow --since 1day");
        assert_eq!(times(&[rows.next().unwrap()]), ["03:04:05"], "the past comes first");
        assert_eq!(daemon.followers(), 1);
        let mut latest = nu.stream("proc events --follow --limit 1");
        assert_eq!(times(&[latest.next().unwrap()]), ["03:04:05"], "of two, of all time");
        let gap = json!({ "time": "2026-01-02T04:00:00Z", "service": null, "kind": "gap",
            "detail": { "reason": "read faster" } });
        daemon.emit(gap);
        let row = rows.next().unwrap();
        assert_eq!(at(&row, &["kind"]), Value::test_string("gap"));
        assert_eq!(at(&row, &["detail", "reason"]), Value::test_string("read faster"));
        assert!(at(&row, &["service"]).is_nothing());
    }

    #[test]
    fn without_a_past_only_what_is_new_comes() {
        let daemon = FakeDaemon::with(Manner::Live);
        let mut rows = Nu::at(&daemon).stream("proc events --follow");
        assert_eq!(times(&[rows.next().unwrap(), rows.next().unwrap()]), ["03:10:00", "03:10:01"]);
    }

    #[test]
    fn the_daemons_end_is_the_last_row() {
        let daemon = FakeDaemon::with(Manner::Live);
        let mut rows = Nu::at(&daemon).stream("proc events --follow").skip(2);
        daemon.end_streams();
        let Some(Value::Error { error, .. }) = rows.next() else { panic!("no error") };
        let error = LabeledError::from(*error);
        assert_eq!(error.code.as_deref(), Some("proc::no_daemon"));
        assert!(error.msg.starts_with("shimd ended"), "{}", error.msg);
        assert!(rows.next().is_none());
    }

    #[test]
    fn what_is_no_event_is_an_error() {
        let daemon = FakeDaemon::start();
        let mut rows = Nu::at(&daemon).stream("proc events --follow");
        daemon.emit(json!({ "time": "2026-01-02T04:00:00Z", "kind": "party", "detail": {} }));
        let Some(Value::Error { error, .. }) = rows.next() else { panic!("no error") };
        assert_eq!(LabeledError::from(*error).code.as_deref(), Some("proc::version"));
        assert!(rows.next().is_none());
    }

    #[test]
    fn mistakes_are_labelled() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let error = nu.error("proc events --follow nowhere");
        assert_eq!(error.code.as_deref(), Some("proc::unknown_service"));
        assert_eq!(nu.labelled_text(&error), "nowhere");
        for source in ["proc events --since=-1hr", "proc events --limit=-1"] {
            assert_eq!(nu.error(source).code.as_deref(), Some("proc::bad_input"), "{source}");
        }
        let folder = Folder::new();
        for source in ["proc events", "proc events --follow", "proc socket-check --watch"] {
            assert_eq!(Nu::alone(&folder).error(source).code.as_deref(), Some("proc::no_daemon"), "{source}");
        }
    }
}
