//! When a stream of rows is to end before its source does: at Ctrl-C, and when nobody reads it any more.
//!
//! It is remembered, since Nushell takes an interrupt back (`Reset`) before its next prompt, which may be sooner than
//! somebody who only looks at the signals now and then comes to look.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nu_plugin::EngineInterface;
use nu_protocol::{HandlerGuard, LabeledError, SignalAction};

/// Set once, seen by everybody who has a copy.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on it is set.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it is.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
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
}
