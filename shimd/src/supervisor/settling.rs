//! No alarm for a reload: a service may unlink its socket and bind it again.
//!
//! What the service itself does to a socket that was in order has `settle` to come right before it is a verdict. What
//! another process does is one at once.
//!
//! | from `ok` to | done by | waits |
//! | --- | --- | --- |
//! | dangling | the service | yes |
//! | dangling | nobody can be known (no fanotify) | yes, until somebody asks |
//! | dangling | another process, or one not seen yet | no |
//! | absent, stale, or bound and not listening yet | the service: who else closes its listener | yes |
//! | anything else, or without a live instance | | no |

use std::time::Instant;

use socket_audit::{Finding, Verdict};

use super::service::Instance;
use super::socket::Socket;
use crate::sys::blame::Deed;

/// Until when a finding may still pass; `None` where it is to be taken as it is. `by`: `None` where nobody can be
/// known, else the deed that was seen. `asked`: somebody waits for the answer.
pub fn settles(
    socket: &mut Socket,
    finding: &Finding,
    instance: Option<&Instance>,
    by: Option<Option<&Deed>>,
    asked: bool,
) -> Option<Instant> {
    let well = socket.verdict == Some(Verdict::Ok);
    let instance = instance.filter(|i| well && i.main_lives && !i.spec.settle.is_zero());
    let waits = instance.filter(|instance| match finding.verdict {
        Verdict::Dangling => match by {
            None => !asked,
            Some(None) => false,
            Some(Some(deed)) => is_own(deed, instance),
        },
        Verdict::Absent | Verdict::Stale => true,
        Verdict::Unknown => finding.bound_not_listening,
        _ => false,
    });
    let Some(instance) = waits else {
        socket.missed = None;
        return None;
    };
    Some(*socket.missed.get_or_insert_with(Instant::now) + instance.spec.settle)
}

/// Whether one of the instance's processes did it.
pub fn is_own(deed: &Deed, instance: &Instance) -> bool {
    deed.who.mark.as_deref() == Some(instance.tree.mark()) || instance.tree.pids_now().contains(&deed.who.pid)
}
