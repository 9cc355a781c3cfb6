//! The only place where errors become labelled errors.
//!
//! The code is `proc::<kind>`: of an error that the daemon answered, or the client met, its kind (`shimd_api::rpc::kind`).
//! The plugin's own errors:
//!
//! | code | when |
//! | --- | --- |
//! | `proc::no_daemon` | a `shimd` was needed, and none could be started; or it ended while it was followed, or in the midst of a log |
//! | `proc::version` | the `shimd` that runs is of another version than this plugin |
//! | `proc::bad_home` | the environment names no usable home: a relative `SHIMD_HOME`, say |
//! | `proc::bad_config` | `$env.config.plugins.proc` holds what it may not |
//! | `proc::bad_input` | an argument or the pipeline is not of the kind that the command takes; there is no terminal |
//! | `proc::bad_spec` | a spec, or the file that holds it, is wrong |
//! | `proc::failed` | with `--fail`: a service did not come up, or a socket is not `ok`; the daemon that runs was not replaced, or not ended |
//! | `proc::denied` | the kernel does not let its sockets be seen |

use std::path::Path;
use std::time::Duration;

use nu_protocol::{LabeledError, Span, Spanned, Type, did_you_mean};
use shimd_api::{ClientError, PathsError, RpcError, rpc::kind};

use crate::plugin::VERSION;

/// The code of what is wrong in the user's settings.
const BAD_CONFIG: &str = "bad_config";

/// What a request was about: where an error of it is labelled.
#[derive(Debug, Clone)]
pub struct Blame {
    /// The command.
    pub head: Span,
    /// The services it names.
    pub names: Vec<Spanned<String>>,
}

impl Blame {
    /// The command alone.
    pub fn head(head: Span) -> Blame {
        Blame { head, names: Vec::new() }
    }

    /// The argument that named `service`, else the command.
    fn of(&self, service: Option<&str>) -> Span {
        let named = service.and_then(|service| self.names.iter().find(|name| name.item == service));
        match (named, self.names.as_slice()) {
            (Some(name), _) => name.span,
            (None, [only]) if service.is_none() => only.span,
            _ => self.head,
        }
    }
}

/// A failed request as a labelled error.
pub fn request(error: ClientError, blame: &Blame) -> LabeledError {
    let label = match error {
        ClientError::Rpc(error) => return rpc(error, blame),
        ClientError::NoDaemon { .. } => "needs a running shimd",
        ClientError::Denied { .. } => "asked by this user",
        ClientError::Timeout { .. } => "waited for shimd",
        ClientError::Closed { .. } => "may or may not have taken effect",
        ClientError::Protocol { .. } | ClientError::Io { .. } => "asked by this command",
        ClientError::Cancelled => "stopped waiting here",
    };
    let help = match &error {
        ClientError::Timeout { .. } => {
            "proc shim restart puts a new one in its place, services live on; to wait longer: \
             $env.config.plugins.proc.deadline = 1min"
                .into()
        }
        ClientError::Denied { .. } => {
            format!("{}: $env.SHIMD_HOME = ($env.HOME | path join shim)", error.help())
        }
        _ => error.help(),
    };
    labelled(error.kind(), error.to_string(), label, blame.of(None), &help)
}

/// Whether Ctrl-C is all that is wrong.
pub fn is_cancelled(error: &LabeledError) -> bool {
    error.code.as_deref() == Some("proc::cancelled")
}

/// An error that the daemon answered.
fn rpc(error: RpcError, blame: &Blame) -> LabeledError {
    let span = blame.of(error.data.as_ref().and_then(|data| data.name.as_deref()));
    let label = match error.kind() {
        kind::UNKNOWN_SERVICE => "not registered",
        kind::BAD_SPEC => "in this spec",
        _ => "asked for here",
    };
    let help = error
        .help()
        .unwrap_or("see what the daemon says of it: proc shim status | get home, and shimd.log there");
    labelled(error.kind(), error.message.clone(), label, span, help)
}

/// The environment names no usable home.
pub fn home(error: &PathsError, head: Span) -> LabeledError {
    let problem = format!("{} {}", error.variable, error.problem);
    let help = format!("{}: $env.{} = ($env.HOME | path join shim)", error.fix, error.variable);
    let help = if error.variable == "HOME" { error.fix.clone() } else { help };
    labelled("bad_home", problem, "cannot tell which shimd is meant", head, &help)
}

/// The user's settings are wrong: labelled there, and at the command that asked for them.
pub fn bad_config(
    problem: String,
    label: impl Into<String>,
    span: Span,
    help: &str,
    head: Span,
) -> LabeledError {
    labelled(BAD_CONFIG, problem, label, span, help).with_label("asks for it", head)
}

/// The closure that would give the user's settings fails.
pub fn bad_closure(problem: String, help: &str, head: Span) -> LabeledError {
    labelled(BAD_CONFIG, problem, "asks for it", head, help)
}

/// A key of the user's settings that is none.
pub fn unknown_key(within: &str, key: &str, known: &[&str], span: Span, head: Span) -> LabeledError {
    let problem = format!("$env.config.plugins.proc{within} has no {key}");
    let near = did_you_mean(known.iter().copied(), key).map(|near| format!("did you mean {near}? "));
    let help = format!("{}It may have: {}", near.unwrap_or_default(), known.join(", "));
    bad_config(problem, "set here", span, &help, head)
}

/// A style of the user's settings that Nushell does not know.
pub fn no_style(word: &str, span: Span, head: Span) -> LabeledError {
    let problem = format!("$env.config.plugins.proc.colours.{word} is no style that Nushell knows");
    let help = "a colour (red_bold, '#ff0000') or a record ({fg: red, bg: black, attr: b}); ansi --list names colours";
    bad_config(problem, "this style", span, help, head)
}

/// None runs, and the user does not want one to be started.
pub fn not_started(socket: &Path, head: Span) -> LabeledError {
    let problem =
        format!("no shimd answers at {}, and $env.config.plugins.proc.autostart is false", socket.display());
    no_start(problem, head, "proc shim start")
}

/// The daemon is of another version.
pub fn version(daemon: &str, head: Span) -> LabeledError {
    labelled(
        kind::VERSION,
        format!("the shimd that runs is {daemon}, this plugin is {VERSION}"),
        "would have been sent to another version",
        head,
        "proc shim restart: services live on while shimd is replaced",
    )
}

/// No daemon could be started.
pub fn no_start(problem: String, head: Span, help: &str) -> LabeledError {
    labelled(kind::NO_DAEMON, problem, "needs a running shimd", head, help)
}

/// No other daemon took the place of the one that runs.
pub fn not_replaced(problem: String, head: Span, help: &str) -> LabeledError {
    labelled(kind::FAILED, problem, "would have replaced shimd", head, help)
}

/// systemd would start the daemon again. `command` stops it for good.
pub fn managed(pid: i32, command: &str, services: bool, head: Span) -> LabeledError {
    let problem = format!("systemd runs this shimd (pid {pid}), and would start it again");
    let before = if services { "proc list | proc stop, then " } else { "" };
    labelled(kind::FAILED, problem, "would not last", head, &format!("{before}{command}"))
}

/// What is shown on a terminal has none.
pub fn no_terminal(problem: &str, head: Span) -> LabeledError {
    labelled(
        "bad_input",
        format!("proc top needs a terminal: {problem}"),
        "shown here",
        head,
        "in a script: proc list, or proc socket-check --watch",
    )
}

/// The daemon went while its events were followed.
pub fn daemon_ended(head: Span) -> LabeledError {
    labelled(
        kind::NO_DAEMON,
        "shimd ended, and its events with it".into(),
        "followed until now",
        head,
        "proc shim start, then follow again; what happened meanwhile: proc events --since",
    )
}

/// The daemon went while it sent a log.
pub fn log_ended(head: Span) -> LabeledError {
    labelled(
        kind::NO_DAEMON,
        "shimd ended in the midst of the log".into(),
        "read until now",
        head,
        "proc shim start, then read on with --since; the service goes on, and what it writes is kept",
    )
}

/// An answer that is not as the wire types have it.
pub fn odd_answer(method: &str, problem: &serde_json::Error, head: Span) -> LabeledError {
    labelled(
        kind::VERSION,
        format!("shimd's answer to {method} is not understood: {problem}"),
        "asked by this command",
        head,
        "shimd and plugin may be of different builds: proc shim restart",
    )
}

/// An argument or input is not of the kind that the command takes.
pub fn bad_input(problem: String, label: impl Into<String>, span: Span, help: &str) -> LabeledError {
    labelled("bad_input", problem, label, span, help)
}

/// A spec, or the file that holds it, is wrong.
pub fn bad_spec(problem: String, label: impl Into<String>, span: Span, help: &str) -> LabeledError {
    labelled(kind::BAD_SPEC, problem, label, span, help)
}

/// What `--fail` makes of rows that are not as wished: each by its name, and why. Every name that was given is labelled.
///
/// # Errors
/// `proc::failed`, if there is any such row.
pub fn fail_if_any(
    what: &str,
    rows: impl Iterator<Item = (String, String)>,
    blame: &Blame,
) -> Result<(), LabeledError> {
    let rows: Vec<(String, String)> = rows.collect();
    let Some((first, _)) = rows.first() else { return Ok(()) };
    let reasons: Vec<String> = rows.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    let show = if first.contains(['/', '@']) { "proc socket-check" } else { "proc status" };
    let is_bad = |name: &&Spanned<String>| rows.iter().any(|(bad, _)| *bad == name.item);
    let mut spans: Vec<Span> = blame.names.iter().filter(is_bad).map(|name| name.span).collect();
    // Names that came through the pipeline share the span of the command that gave them.
    spans.dedup();
    if spans.is_empty() {
        spans.push(blame.head);
    }
    // Why a program does not come up, it says itself.
    let log =
        what.starts_with("did not come up").then(|| format!("; what it wrote: proc logs {first} --lines 20"));
    let help = format!("{show} {first}{}", log.unwrap_or_default());
    let error = coded(kind::FAILED, format!("{what}: {}", reasons.join("; "))).with_help(help);
    Err(spans.into_iter().fold(error, |error, span| error.with_label(what, span)))
}

/// A daemon that was told to end, and has not yet.
pub fn still_ending(pid: i32, waited: Duration, head: Span) -> LabeledError {
    let problem = format!("shimd (pid {pid}) was told to end and did not within {} s", waited.as_secs());
    let help =
        format!("see what holds it up in shimd.log in its home, or end it: kill {pid}; the services live on");
    labelled(kind::TIMEOUT, problem, "waited for shimd to end", head, &help)
}

/// The socket audit itself did not work.
pub fn audit(problem: &dyn std::error::Error, head: Span) -> LabeledError {
    labelled(
        kind::DENIED,
        problem.to_string(),
        "the kernel's sockets cannot be seen",
        head,
        "proc socket-check PATH looks at one",
    )
}

fn labelled(code: &str, message: String, label: impl Into<String>, span: Span, help: &str) -> LabeledError {
    coded(code, message).with_label(label, span).with_help(help)
}

/// Every error of this plugin has a code, and names the page that tells more of it.
fn coded(code: &str, message: String) -> LabeledError {
    let page = match code {
        kind::BAD_SPEC => "docs/spec.md",
        kind::NOT_GAPLESS => "docs/publish.md",
        BAD_CONFIG => "docs/config.md",
        _ => "docs/errors.md",
    };
    // The page as the source has it, until the package says where that is published.
    let url = match env!("CARGO_PKG_REPOSITORY") {
        "" => page.to_owned(),
        repository => format!("{repository}/blob/main/{page}"),
    };
    LabeledError::new(message).with_code(format!("proc::{code}")).with_url(url)
}

/// A type with its article, without the columns of a record or table.
pub fn a_type(of: &Type) -> String {
    match of {
        Type::Record(_) => "a record".into(),
        Type::Table(_) => "a table".into(),
        Type::List(_) => "a list".into(),
        Type::Nothing => "nothing".into(),
        Type::Int => "an int".into(),
        Type::Error => "an error".into(),
        other => format!("a {other}"),
    }
}
