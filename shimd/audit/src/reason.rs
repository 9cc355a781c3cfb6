//! A verdict's reason in plain words, with the processes by pid and name.

use std::borrow::Cow;
use std::time::Duration;

use crate::audit::{Expect, Owner, Party};
use crate::cause::Cause;
use crate::dentry::DentryKind;
use crate::inquiry::Case;
use crate::procfs::{Process, is_stopped, is_traced};
use crate::reach::{group_name, user_name};
use crate::verdict::{At, Away, QueueState, Stage, There, Verdict};

/// Says why. Empty for a plain `ok`.
pub(crate) fn reason(
    expect: &Expect,
    case: &Case,
    verdict: Verdict,
    cause: Option<&Cause>,
    holder: Option<&Process>,
    others: &[Party],
) -> Cow<'static, str> {
    let words = why(expect, case, verdict, holder, others);
    match cause {
        Some(cause) => format!("{cause}: {words}").into(),
        None => words,
    }
}

fn why(
    expect: &Expect,
    case: &Case,
    verdict: Verdict,
    holder: Option<&Process>,
    others: &[Party],
) -> Cow<'static, str> {
    let own = || match holder {
        Some(process) => process.to_string(),
        None if expect.owner != Owner::Anyone => "the service".to_owned(),
        None => "a process that cannot be seen".to_owned(),
    };
    let still = || format!("{} still listens on the lost socket", own());
    match verdict {
        Verdict::Ok if case.facts.at == At::Link => "reached through a symbolic link".into(),
        Verdict::Ok => "".into(),
        Verdict::Dangling => format!("nothing at the path, but {}", still()).into(),
        Verdict::Replaced => match (case.facts.at, case.facts.there) {
            (At::Socket | At::Link, There::Own(_)) => format!("{} has bound the path, but {}", own(), wrong_type(expect, case)).into(),
            (At::Socket | At::Link, There::Others(stage)) => {
                format!("{} at the path, while {}", stranger(expect, others, stage), still()).into()
            }
            (At::Socket | At::Link, There::Unclear) => {
                format!("{} listens at the path, while {}", party(others), still()).into()
            }
            (At::Socket | At::Link, _) => {
                format!("a socket that nobody listens on lies at the path, while {}", still()).into()
            }
            _ => format!("{} lies at the path, while {}", what(case), still()).into(),
        },
        Verdict::Foreign => {
            let stage = match case.facts.there {
                There::Others(stage) => stage,
                There::Nobody | There::Own(_) | There::Unclear => Stage::Listening,
            };
            let kind = if case.facts.kind_fits { String::new() } else { format!("; {}", wrong_type(expect, case)) };
            format!("{} at the path{kind}", stranger(expect, others, stage)).into()
        }
        Verdict::Stale if case.shut => "the socket was shut down: it is not closed and takes nobody any more".into(),
        Verdict::Stale => "a socket file that nobody listens on".into(),
        Verdict::NotSocket if case.facts.at == At::Link => "a symbolic link to a socket that nobody listens on".into(),
        Verdict::NotSocket => format!("{} lies at the path, and nobody listens", what(case)).into(),
        Verdict::Absent => match others.first() {
            Some(_) => format!(
                "nothing at the path and no listener of the service; {} still listens on a removed socket of this name",
                party(others)
            )
            .into(),
            None => "nothing at the path and no listener".into(),
        },
        Verdict::Wedged => wedged(case, &own(), holder).into(),
        Verdict::Denied => match &case.refusal {
            Some(refusal) => refusal.words(user_name, group_name).into(),
            None => "its peers may not connect".into(),
        },
        Verdict::Unknown => unknown(case, holder),
    }
}

fn wedged(case: &Case, own: &str, holder: Option<&Process>) -> String {
    let (pending, backlog) = case.own().map_or((0, 0), |own| (own.pending, own.backlog));
    let wait = waiting(pending as usize);
    let stopped = || match holder.is_some_and(|holder| is_traced(holder.pid)) {
        true => format!("and {own} is stopped by a debugger"),
        false => format!("and {own} is stopped (SIGSTOP; SIGCONT wakes it)"),
    };
    if case.facts.queue == QueueState::Stopped {
        return format!("{wait} {}", stopped());
    }
    let places = if backlog == 1 { "place" } else { "places" };
    let full = format!("the queue is full: {wait} for {backlog} {places}, and a further client hangs");
    if holder.is_some_and(|holder| is_stopped(holder.pid)) { format!("{full}, {}", stopped()) } else { full }
}

/// Why a service is `wedged` by a [`crate::Flow::Stuck`]: how many wait, for how long the oldest has, and for whom.
pub fn wedged_reason(waiting_now: usize, oldest: Duration, holder: Option<&Process>) -> String {
    let whom = holder.map_or_else(|| "the service".to_owned(), Process::to_string);
    let stopped = match holder.map(|holder| holder.pid) {
        Some(pid) if is_traced(pid) => ", it is stopped by a debugger",
        Some(pid) if is_stopped(pid) => ", it is stopped (SIGSTOP)",
        _ => "",
    };
    format!("{}, the oldest for {}, and {whom} accepts none{stopped}", waiting(waiting_now), duration(oldest))
}

fn waiting(connections: usize) -> String {
    match connections {
        1 => "1 connection waits".to_owned(),
        several => format!("{several} connections wait"),
    }
}

/// As Nushell writes it, in whole seconds from one second on.
fn duration(length: Duration) -> String {
    let seconds = length.as_secs();
    if seconds == 0 {
        return format!("{}ms", length.as_millis());
    }
    let units = [
        (seconds / 86_400, "day"),
        (seconds / 3600 % 24, "hr"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "sec"),
    ];
    let parts =
        units.iter().filter(|(number, _)| *number > 0).map(|(number, unit)| format!("{number}{unit}"));
    parts.collect::<Vec<_>>().join(" ")
}

fn unknown(case: &Case, holder: Option<&Process>) -> Cow<'static, str> {
    if let Some(trouble) = &case.trouble {
        return trouble.to_string().into();
    }
    match (case.facts.at, case.facts.there, case.facts.away) {
        (At::Socket | At::Link, There::Own(_), _) => match holder {
            Some(process) => format!("bound by {process}, not listening yet").into(),
            None => "bound, not listening yet".into(),
        },
        (At::Socket | At::Link, There::Unclear, _) if case.there.is_some() => {
            "a socket listens at the path, and whose it is cannot be told".into()
        }
        (At::Socket | At::Link, There::Unclear, _) if case.bound == Some(true) => {
            "a socket that the kernel does not list here is bound to the file: one of a network namespace that may not be asked".into()
        }
        (At::Socket | At::Link, There::Unclear, _) => {
            "nobody listens in this network namespace, and another that has a socket of this name may not be asked".into()
        }
        (_, _, Away::Unclear) => {
            "a socket of this name listens on another inode, and whose it is cannot be told".into()
        }
        _ => "the kernel's answer could not be had".into(),
    }
}

fn what(case: &Case) -> &'static str {
    match case.dentry.map(|dentry| dentry.kind) {
        Some(DentryKind::Symlink) => "a symbolic link that leads to no socket",
        Some(kind) => kind.words(),
        None => "something else",
    }
}

fn wrong_type(expect: &Expect, case: &Case) -> String {
    let (bound, declared) = (case.there.as_ref().map(|there| there.kind), expect.kind);
    let word = |kind: Option<crate::SocketKind>| kind.map_or("another", crate::SocketKind::as_str);
    format!("the socket's type is {} and {} is declared: clients get EPROTOTYPE", word(bound), word(declared))
}

fn stranger(expect: &Expect, others: &[Party], stage: Stage) -> String {
    let outside = if expect.owner == Owner::Anyone { "" } else { ", outside this service," };
    match stage {
        Stage::Listening => format!("{}{outside} listens", party(others)),
        Stage::Soon => format!("{}{outside} has bound a socket", party(others)),
    }
}

/// The first of the others.
fn party(others: &[Party]) -> String {
    let holder = others.first().and_then(|other| other.holder.as_ref());
    holder.map_or_else(|| "a process that cannot be seen".to_owned(), Process::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_a_queue_is_told_as_nushell_tells_it() {
        let words = |millis| wedged_reason(2, Duration::from_millis(millis), None);
        assert_eq!(words(7900), "2 connections wait, the oldest for 7sec, and the service accepts none");
        assert!(words(250).contains(" 250ms,") && words(3_661_000).contains(" 1hr 1min 1sec,"));
        let me = crate::procfs::describe(std::process::id() as i32);
        let words = wedged_reason(1, Duration::from_secs(60), me.as_ref());
        assert!(words.starts_with("1 connection waits, the oldest for 1min, and pid "), "{words}");
    }
}
