//! A verdict's reason in words.

use crate::audit::{Expect, Finding};
use crate::dentry::DentryKind;
use crate::listener::ListenerState;
use crate::verdict::Verdict;

/// Says why, for a finding whose facts are filled in. Nothing for a plain `ok`.
pub(crate) fn words(finding: &Finding, expect: &Expect) -> String {
    let who = finding
        .holder
        .as_ref()
        .map_or_else(|| "a process that cannot be seen".to_owned(), ToString::to_string);
    let kind = |k: DentryKind| k.words();
    let there = finding.dentry.map_or("nothing", |d| kind(d.kind));
    match finding.verdict {
        Verdict::Ok => match finding.dentry {
            Some(d) if d.kind == DentryKind::Symlink => "through a symbolic link".into(),
            _ => String::new(),
        },
        Verdict::Dangling => {
            format!("nothing lies at the path, but {who} still listens on the socket that was there")
        }
        Verdict::Absent => "nothing lies at the path, and nobody listens".into(),
        Verdict::Stale => "the socket file is left over: nobody listens on it".into(),
        Verdict::NotSocket => format!("{there} lies at the path, and nobody listens"),
        Verdict::Foreign => format!("{who}, outside the service, listens at the path"),
        Verdict::Replaced => match (&finding.listener, expect.kind) {
            (Some(l), Some(wanted)) if l.kind != wanted && finding.at_path => {
                format!(
                    "the socket at the path is of type {}, declared is {wanted}: clients get EPROTOTYPE",
                    l.kind
                )
            }
            _ => match &finding.other {
                Some(other) => {
                    format!(
                        "{other} listens at the path; {who} still listens on the socket that was there before"
                    )
                }
                None => format!(
                    "{there} that nobody listens on lies at the path, and {who} still listens on the socket that was there before"
                ),
            },
        },
        Verdict::Unknown => match &finding.listener {
            Some(l) if l.state == ListenerState::Bound => format!("bound by {who}, not listening yet"),
            _ => "whether a process of the service listens could not be told".into(),
        },
    }
}
