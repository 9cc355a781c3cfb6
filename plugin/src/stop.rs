//! When a stream of rows is to end before its source does: at Ctrl-C, and when nobody reads it any more.
//!
//! It is remembered, since Nushell takes an interrupt back (`Reset`) before its next prompt, which may be sooner than
//! somebody who only looks at the signals now and then comes to look.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nu_plugin::EngineInterface;
use nu_protocol::{HandlerGuard, LabeledError, SignalAction};

/// Set once, seen by everybody who has a copy.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// From now on it is set.
    pub fn set(&self) {
        *self.lock() = true;
        self.0.changed.notify_all();
    }

    /// Whether it is.
    pub fn is_set(&self) -> bool {
        *self.lock()
    }

    /// Waits so long, or until it is set; says whether it is.
    pub fn wait(&self, time: Duration) -> bool {
        let waited = self.0.changed.wait_timeout_while(self.lock(), time, |set| !*set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Is set by Ctrl-C, as long as the guard lives.
    ///
    /// # Errors
    /// Nushell's own.
    pub fn at_ctrl_c(&self, engine: &EngineInterface) -> Result<HandlerGuard, LabeledError> {
        let stop = self.clone();
        let guard = engine.register_signal_handler(Box::new(move |action| {
            if action == SignalAction::Interrupt {
                stop.set();
            }
        }))?;
        if engine.signals().interrupted() {
            self.set();
        }
        Ok(guard)
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        // A bool is whole whenever a thread may have died.
        self.0.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_wait_ends_when_it_is_set() {
        let stop = Stop::default();
        assert!(!stop.wait(Duration::from_millis(1)));
        let waiter = std::thread::spawn({
            let stop = stop.clone();
            move || stop.wait(Duration::from_secs(60))
        });
        let began = Instant::now();
        stop.set();
        assert!(waiter.join().unwrap() && stop.is_set() && stop.wait(Duration::from_secs(60)));
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}
