//! Events that could not be kept: how many, and why.
//!
//! Nobody waits for an event, so a disk that is slow or full must not make them pile up in memory: beyond
//! [`QUEUED`] they are dropped when they are submitted, and what the disk refuses is dropped then.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How many events may wait for the disk: some MiB. inotify's own queue holds as many.
pub const QUEUED: usize = 16_384;

/// Shared by those who submit and the thread that writes.
#[derive(Debug, Default)]
pub(super) struct Lost {
    queued: AtomicUsize,
    count: AtomicU64,
    why: Mutex<Option<String>>,
}

impl Lost {
    /// Whether one more event may wait.
    pub fn enter(&self, most: usize) -> bool {
        let waiting = self.queued.fetch_add(1, Ordering::Relaxed);
        if waiting < most {
            return true;
        }
        self.leave(1);
        false
    }

    /// Events that wait no longer.
    pub fn leave(&self, events: usize) {
        self.queued.fetch_sub(events, Ordering::Relaxed);
    }

    /// Events are dropped.
    pub fn add(&self, events: u64, why: &str) {
        self.count.fetch_add(events, Ordering::Relaxed);
        let mut told = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none() {
            tracing::error!("events are dropped from the history: {why}");
            *told = Some(why.to_owned());
        }
    }

    /// Events are kept (again).
    pub fn ended(&self) {
        let mut told = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        if told.take().is_some() {
            tracing::warn!("events are kept again; {} were lost since the start", self.count());
        }
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// For `shim.info`, while it lasts.
    pub fn trouble(&self) -> Option<String> {
        let told = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        let why = told.as_ref()?;
        Some(format!("{} events are missing from the history: {why}; free disk space", self.count()))
    }
}
