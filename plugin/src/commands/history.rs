//! `proc history`: what each socket of a service was, from when, and how long.

use chrono::{Local, TimeDelta, Utc};
use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Span, SyntaxShape, Type, Value};
use serde_json::{Value as Json, json};
use shimd_api::event::{EventKind, EventRow};

use crate::chart::chart;
use crate::colours::Palette;
use crate::daemon::Daemon;
use crate::error::Blame;
use crate::flags::Flags;
use crate::input::Names;
use crate::plugin::Proc;
use crate::signature::ServiceSignature;
use crate::spells::{Spell, spells};
use crate::value;

/// More than the daemon keeps: it is asked for all.
const ALL: u64 = 10_000_000;
/// The width of a chart where there is no terminal.
const WIDTH: usize = 80;

/// `proc history`.
pub struct History;

impl PluginCommand for History {
    type Plugin = Proc;

    fn name(&self) -> &str {
        "proc history"
    }

    fn description(&self) -> &str {
        "Show what each socket of a service was: its verdicts over time."
    }

    fn extra_description(&self) -> &str {
        "A row is a verdict that a socket had for a time: from when, how long it lasted (of the last one: until now), why,
and who did it, where that is known. With --since rows come that reach into that time; they are whole.

--chart draws a line a socket, as wide as the terminal (80 columns where there is none), with colours only on a
terminal. A column shows the worst of its time, so that a lost file is seen however short it was."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["service", "socket", "verdict", "timeline", "uptime", "outage", "availability"]
    }

    crate::completes!(Services);

    fn signature(&self) -> Signature {
        Signature::build("proc history")
            .services()
            .names("The service: one name.")
            .named("since", SyntaxShape::Duration, "Only of so long ago until now.", Some('s'))
            .switch("chart", "A timeline of text.", Some('c'))
            .takes_names(Type::one_of([Type::table(), Type::String]))
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                example: "proc history web | reject lasted | last",
                description: "What a service's socket has been of late",
                result: None,
            },
            Example {
                example: "proc history web --since 1day --chart",
                description: "A day at a glance",
                result: None,
            },
            Example {
                example: "proc history web | where verdict != ok | group-by verdict --to-table | insert lasted {|it| $it.items.lasted | math sum} | reject items",
                description: "How long clients could not reach it, by verdict",
                result: None,
            },
            Example {
                example: "proc history web | where verdict == dangling and lasted > 1sec | get culprit",
                description: "Who took a file away for longer than a moment",
                result: None,
            },
            Example {
                example: "proc history redis",
                description: "A service of which no verdict is kept",
                result: Some(Value::test_list(vec![])),
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
        let name = Names::read(call, input)?.only(self.name(), call.head)?;
        let since = call.not_negative("since", "proc history NAME --since 1hr")?;
        let now = Utc::now();
        let since = since.and_then(|back| now.checked_sub_signed(TimeDelta::nanoseconds(back)));
        let params = json!({ "name": name.item, "kinds": [EventKind::Verdict], "limit": ALL });
        let known = json!({ "name": name.item });
        let mut daemon = Daemon::running(engine, Blame { head: call.head, names: vec![name] })?;
        let events: Vec<EventRow> = daemon.ask("event.list", params)?;
        if events.is_empty() {
            // The history outlives its services: only of one without any it matters whether it is registered.
            daemon.ask::<Json>("service.list", known)?;
        }
        let spells = spells(&events, since, now);
        if !call.switch("chart")? {
            return Ok(value::table(&spells, call.head));
        }
        let palette = Palette::of(engine, call.head)?;
        let from = since.or_else(|| spells.first().map(|first: &Spell| first.from)).unwrap_or(now);
        let drawn = match spells.is_empty() {
            true => String::new(),
            false => chart(&spells, (from, now), width(engine, call.head), &palette, &Local),
        };
        Ok(PipelineData::value(Value::string(drawn, call.head), None))
    }
}

/// The width of the terminal that Nushell runs in.
fn width(engine: &EngineInterface, head: Span) -> usize {
    let asked = || {
        let size = engine.find_decl("term size").ok()??;
        let call = EvaluatedCall::new(head);
        let size = engine.call_decl(size, call, PipelineData::empty(), true, true).ok()?;
        let columns = size.into_value(head).ok()?.get_data_by_key("columns")?.as_int().ok()?;
        usize::try_from(columns).ok().filter(|columns| *columns > 0)
    };
    asked().unwrap_or(WIDTH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeDaemon, Folder, Nu, at};

    #[test]
    fn the_examples_hold() {
        let daemon = FakeDaemon::start();
        Nu::at(&daemon).examples_hold(&History);
    }

    #[test]
    fn an_event_is_two_spells() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let rows = nu.value("proc history web").unwrap().into_list().unwrap();
        let [before, lost] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!(at(before, &["verdict"]), Value::test_string("ok"));
        assert_eq!(at(before, &["lasted"]), Value::test_duration(182_000_000_000));
        assert_eq!(at(lost, &["from"]), value::time("2026-01-02T03:04:05.678Z", Span::test_data()));
        assert_eq!(at(lost, &["culprit", "name"]), Value::test_string("rm"));
        assert_eq!(at(lost, &["reason"]).as_str().unwrap(), "nothing is at the path; the listener is alive");
        let last = daemon.requests();
        assert_eq!(
            last.last().unwrap()["params"],
            json!({ "name": "web", "kinds": ["verdict"], "limit": ALL })
        );
        let late = nu.value("{name: web} | proc history --since 1min").unwrap().into_list().unwrap();
        assert_eq!(late.len(), 1, "the one that lasts");
    }

    #[test]
    fn a_chart_fits() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let drawn = nu.value("proc history web --chart").unwrap().into_string().unwrap();
        assert!(drawn.lines().all(|line| line.chars().count() <= WIDTH), "{drawn}");
        assert!(drawn.contains("rpc.sock  ") && drawn.contains("D dangling"), "{drawn}");
        assert_eq!(nu.value("proc history redis --chart").unwrap(), Value::test_string(""));
    }

    #[test]
    fn mistakes_are_labelled() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let error = nu.error("proc history nowhere");
        assert_eq!(error.code.as_deref(), Some("proc::unknown_service"));
        assert_eq!(nu.labelled_text(&error), "nowhere");
        assert_eq!(nu.error("proc history web redis").code.as_deref(), Some("proc::bad_input"));
        assert_eq!(nu.error("proc history web --since=-1hr").code.as_deref(), Some("proc::bad_input"));
        let folder = Folder::new();
        assert_eq!(Nu::alone(&folder).error("proc history web").code.as_deref(), Some("proc::no_daemon"));
    }
}
