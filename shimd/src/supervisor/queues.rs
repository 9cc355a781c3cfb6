//! `wedged`, by time: connections that wait in a listener's queue raise no event, and one look cannot tell a queue that
//! stands still from one that moves.
//!
//! Once a second, less often where a dump is dear, the audit thread lists the listeners that somebody waits for; mostly
//! there are none. From then on a socket's queue is followed until it is empty: by single queries, at the moment at
//! which its oldest connection will have waited too long, and four times a second while it is wedged.
//!
//! | the queue | wedged once its head has stood still for |
//! | --- | --- |
//! | has room | the spec's `wedged_after` |
//! | is full: a further client hangs | 100 ms: a burst that is being worked off moves sooner |

use std::sync::Arc;
use std::time::{Duration, Instant};

use socket_audit::{
    Auditor, Finding, Flow, ListenerId, Queue, SocketKind, Verdict, Waiting, procfs, wedged_reason,
};

use super::Supervisor;
use super::socket::Socket;

/// How long a full queue may stand still.
const FULL: Duration = Duration::from_millis(100);
/// How soon a wedged socket is looked at again.
const AGAIN: Duration = Duration::from_millis(250);
/// How soon at the least, and at the latest, a queue that is followed.
const SOONEST: Duration = Duration::from_millis(10);
const LATEST: Duration = Duration::from_secs(1);
/// The look for waiting connections may cost one five-hundredth of a processor, or comes every two seconds.
const SHARE: u32 = 500;

/// The queue of a socket that somebody waits for.
#[derive(Debug, Clone)]
pub struct Line {
    listener: ListenerId,
    queue: Queue,
}

/// Judges by time what a single look cannot: turns `ok` into `wedged`, and a `wedged` that may pass into `ok`. When to
/// look again, if somebody waits.
pub fn weigh(
    auditor: &mut Auditor,
    socket: &mut Socket,
    finding: &mut Finding,
    after: Duration,
) -> Option<Instant> {
    let line = socket.line.take();
    let judged = matches!(finding.verdict, Verdict::Ok | Verdict::Wedged);
    let listener =
        finding.listener.as_mut().filter(|l| judged && l.pending > 0 && l.kind != SocketKind::Dgram)?;
    let id = listener.id();
    let mut queue = line.filter(|line| line.listener == id).map_or_else(Queue::new, |line| line.queue);
    // Where the kernel does not name those who wait (another network namespace), their number must do.
    let unnamed = Waiting { pending: listener.pending, backlog: listener.backlog, icons: None };
    let waiting = auditor.waiting(id).ok().flatten().unwrap_or(unnamed);
    let now = Instant::now();
    queue.look(&waiting, now);
    (listener.pending, listener.backlog) = (waiting.pending, waiting.backlog);
    let full = waiting.pending > waiting.backlog;
    let limit = if full { FULL.min(after) } else { after };
    let oldest = queue.oldest();
    let next = match queue.verdict(limit, now) {
        Flow::Stuck { since, waiting } => {
            if finding.verdict == Verdict::Ok || !full {
                let holder = finding.holder.clone().or_else(|| procfs::describe(socket.pid?));
                finding.reason =
                    wedged_reason(waiting, now.saturating_duration_since(since), holder.as_ref()).into();
            }
            finding.verdict = Verdict::Wedged;
            Some(now + AGAIN)
        }
        Flow::Flows => {
            if finding.verdict == Verdict::Wedged {
                finding.verdict = Verdict::Ok;
                finding.reason = "".into();
            }
            oldest.map(|since| (since + limit).clamp(now + SOONEST, now + LATEST))
        }
    };
    socket.line = oldest.map(|_| Line { listener: id, queue });
    next
}

impl Supervisor {
    /// Asks the audit thread who is waited for, once it is time to.
    pub(super) fn look_for_waiting(&mut self) {
        self.next_queues = Instant::now() + self.queues_every(Duration::ZERO);
        if !self.audit_thread.busy
            && self.services.values().any(|s| s.instance.is_some() && !s.sockets.is_empty())
        {
            self.ask_who_waits();
        }
    }

    /// These listeners are waited for; so long did it take to find out.
    pub(super) fn on_waiting(&mut self, listeners: &[ListenerId], took: Duration) {
        self.audit_thread.busy = false;
        self.next_queues = Instant::now() + self.queues_every(took);
        for listener in listeners {
            // One that is followed has its own time.
            let new = |s: &Socket| s.known == Some(*listener) && s.line.is_none();
            let of = |s: &&super::service::Service| s.sockets.iter().any(new);
            if let Some(name) = self.services.values().find(of).map(|s| s.name.clone()) {
                self.dirty.insert(name, None);
            }
        }
    }

    fn queues_every(&self, took: Duration) -> Duration {
        let shortest = self.services.values().map(|s| s.live_spec().wedged_after).min().unwrap_or(LATEST);
        (shortest / 4).clamp(FULL, LATEST).max(took.saturating_mul(SHARE).min(2 * LATEST))
    }

    /// Looks at a service again when the first of its queues may be wedged.
    pub(super) fn follow_queue(&mut self, name: &Arc<str>, next: Option<Instant>) {
        use super::clock::Alarm;
        match next {
            Some(at) => self.clock.arm(name, Alarm::Queue, at.saturating_duration_since(Instant::now())),
            None => self.clock.disarm(name, Alarm::Queue),
        }
    }
}
