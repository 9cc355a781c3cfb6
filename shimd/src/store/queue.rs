//! What waits for the store's thread.
//!
//! A channel wakes its reader for each thing that is sent, and std's does so under a lock that the reader wants at once:
//! on one processor that is four changes of thread for an event that nobody waits for, a dozen times in a restart. Here
//! the thread is woken after the lock is free, and only where there is a reason:
//!
//! | the thread | is woken by |
//! | --- | --- |
//! | works | nobody: it looks before it sleeps |
//! | has nothing | anything |
//! | has what is not hurried, and lets it wait for company | what is, and a full batch |

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::thread::Job;

/// How many jobs are taken at once.
const BATCH: usize = 1024;
/// How long what is not hurried waits for more: those who follow are to have an event first, and a service that starts the
/// processor. Most that start quickly are up before it is over, and then all goes with what is waited for.
const COMPANY: Duration = Duration::from_millis(10);

/// The end that jobs are pushed into.
#[derive(Debug)]
pub(super) struct Submitter(Arc<Queue>);

/// The thread's end.
#[derive(Debug)]
pub(super) struct Taker(Arc<Queue>);

/// A queue without limit: that of events is counted by [`Lost`](super::lost::Lost).
pub(super) fn queue() -> (Submitter, Taker) {
    let queue = Arc::new(Queue::default());
    (Submitter(queue.clone()), Taker(queue))
}

#[derive(Debug, Default)]
struct Queue {
    inner: Mutex<Inner>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    jobs: VecDeque<Job>,
    /// How many of them wait for no company.
    hurried: usize,
    thread: Thread,
    /// Nothing is pushed any more.
    closed: bool,
    /// The thread has ended, as it only does by a panic before this is closed.
    gone: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Thread {
    #[default]
    Works,
    HasNothing,
    Gathers,
}

impl Inner {
    /// Whether the jobs are to be taken without waiting for more.
    fn is_enough(&self) -> bool {
        self.hurried > 0 || self.jobs.len() >= BATCH || self.closed
    }
}

impl Submitter {
    /// Queues a job; it is dropped, and so is its answer, where the thread is gone.
    pub fn push(&self, job: Job) {
        let mut inner = self.0.lock();
        if inner.gone {
            return;
        }
        inner.hurried += usize::from(!job.is_unhurried());
        inner.jobs.push_back(job);
        self.0.tell(inner);
    }
}

impl Drop for Submitter {
    /// What waits is done, and the thread ends.
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.closed = true;
        self.0.tell(inner);
    }
}

impl Taker {
    /// The next jobs, in order. Waits until there are some, unless there is other work: then it may give none.
    /// `None`: nothing is pushed any more, and all is taken.
    pub fn take(&self, other_work: bool) -> Option<Vec<Job>> {
        let mut inner = self.0.lock();
        while inner.jobs.is_empty() && !inner.closed && !other_work {
            inner.thread = Thread::HasNothing;
            inner = self.0.news.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        let until = Instant::now() + COMPANY;
        while !inner.jobs.is_empty() && !inner.is_enough() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inner.thread = Thread::Gathers;
            (inner, _) = self.0.news.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner);
        }
        inner.thread = Thread::Works;
        if inner.closed && inner.jobs.is_empty() {
            return None;
        }
        let most = inner.jobs.len().min(BATCH);
        let jobs: Vec<Job> = inner.jobs.drain(..most).collect();
        inner.hurried -= jobs.iter().filter(|job| !job.is_unhurried()).count();
        Some(jobs)
    }
}

impl Drop for Taker {
    /// Nobody is left waiting for what nobody will do.
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.gone = true;
        let jobs = std::mem::take(&mut inner.jobs);
        drop(inner);
        drop(jobs);
    }
}

impl Queue {
    /// Wakes the thread, where the table says so.
    fn tell(&self, mut inner: MutexGuard<'_, Inner>) {
        let wakes = match inner.thread {
            Thread::Works => false,
            Thread::HasNothing => true,
            Thread::Gathers => inner.is_enough(),
        };
        if wakes {
            // Once is enough.
            inner.thread = Thread::Works;
        }
        drop(inner);
        if wakes {
            self.news.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use shimd_api::wire::Culprit;
    use tokio::sync::oneshot;

    use super::*;
    use crate::store::Write;

    fn event() -> Job {
        let culprit = Culprit { pid: 1, name: "rm".into(), exe: None, uid: None };
        Job::Write { write: Write::EventCulprit { id: 1, culprit }, answer: None, hurried: false }
    }

    fn flush() -> Job {
        Job::Flush(oneshot::channel().0)
    }

    /// What a thread that waits takes after this was pushed, and after how long.
    fn taken(push: impl FnOnce(&Submitter)) -> (Option<usize>, Duration) {
        let (submitter, thread) = one_that_waits();
        let began = Instant::now();
        push(&submitter);
        (thread.join().unwrap(), began.elapsed())
    }

    fn one_that_waits() -> (Submitter, thread::JoinHandle<Option<usize>>) {
        let (submitter, taker) = queue();
        let thread = thread::spawn(move || taker.take(false).map(|jobs| jobs.len()));
        while submitter.0.lock().thread != Thread::HasNothing {
            thread::yield_now();
        }
        (submitter, thread)
    }

    #[test]
    fn events_wait_for_company_and_go_with_what_is_waited_for() {
        let (taken_alone, took) = taken(|queue| queue.push(event()));
        assert_eq!(taken_alone, Some(1));
        assert!(took >= COMPANY, "{took:?}");
        let (together, _) = taken(|queue| {
            queue.push(event());
            while queue.0.lock().thread != Thread::Gathers {
                thread::yield_now();
            }
            queue.push(event());
            assert_eq!(queue.0.lock().thread, Thread::Gathers, "an event does not wake it");
            queue.push(flush());
        });
        assert!(
            matches!(together, Some(1 | 3)),
            "{together:?}: with the flush, or before it on a slow machine"
        );
    }

    #[test]
    fn all_is_taken_before_the_end_is_told() {
        let (submitter, taker) = queue();
        for _ in 0..BATCH {
            submitter.push(event());
        }
        submitter.push(flush());
        drop(submitter);
        assert_eq!(taker.take(false).map(|jobs| jobs.len()), Some(BATCH));
        assert_eq!(taker.take(true).map(|jobs| jobs.len()), Some(1));
        assert!(taker.take(true).is_none());
        assert!(taker.take(false).is_none());
        let (submitter, thread) = one_that_waits();
        drop(submitter);
        assert_eq!(thread.join().unwrap(), None, "one that waits is told of the end");
    }

    #[test]
    fn other_work_does_not_wait() {
        let (_submitter, taker) = queue();
        assert_eq!(taker.take(true).map(|jobs| jobs.len()), Some(0));
    }

    #[test]
    fn nobody_waits_for_a_thread_that_is_gone() {
        let (submitter, taker) = queue();
        let (before, mut queued) = oneshot::channel();
        submitter.push(Job::Flush(before));
        drop(taker);
        let (after, mut late) = oneshot::channel();
        submitter.push(Job::Flush(after));
        let gone = Err(oneshot::error::TryRecvError::Closed);
        assert!(queued.try_recv().map(drop) == gone && late.try_recv().map(drop) == gone);
    }
}
