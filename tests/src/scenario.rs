//! One trial: look what it needs, make its world, run it, end its world, say all that happened if it failed.

use crate::fault::Context;
use crate::{Fault, Need, Result, World, mounts, processes};
use libtest_mimic::{Completion, Failed, Trial};
use nix::unistd::User;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// A trial named `name`. Where a need is not met it is reported as ignored, with the reason.
pub fn scenario(name: &str, needs: &[Need], body: impl FnOnce(&World) -> Result + Send + 'static) -> Trial {
    let (name, needs) = (name.to_owned(), needs.to_vec());
    Trial::ignorable_test(name.clone(), move || trial(&name, &needs, None, body))
}

/// The same in a world that belongs to another user, as whom every command and the daemon run. Needs root.
pub fn scenario_as(
    user: &'static str,
    name: &str,
    needs: &[Need],
    body: impl FnOnce(&World) -> Result + Send + 'static,
) -> Trial {
    let mut all = vec![Need::Root, Need::User(user)];
    all.extend(needs.iter().cloned());
    let name = name.to_owned();
    Trial::ignorable_test(name.clone(), move || trial(&name, &all, Some(user), body))
}

fn trial(
    name: &str,
    needs: &[Need],
    user: Option<&str>,
    body: impl FnOnce(&World) -> Result,
) -> std::result::Result<Completion, Failed> {
    if let Some(reason) = needs.iter().find_map(Need::lacking) {
        return Ok(Completion::ignored_with(reason));
    }
    let user = match user {
        Some(name) => Some(User::from_name(name)?.ok_or_else(|| Failed::from(format!("no user {name}")))?),
        None => None,
    };
    let world = World::new(name, user).context("cannot make the scenario's folder")?;
    let start = Instant::now();
    // Unwind safe: the world is only read and ended after a panic, and its locks ignore poison.
    let outcome = match catch_unwind(AssertUnwindSafe(|| body(&world))) {
        Ok(outcome) => outcome,
        Err(panic) => Err(Fault(panic_words(panic.as_ref()))),
    };
    let took = start.elapsed();
    let ended = world.end();
    if outcome.is_ok() && ended.is_ok() {
        world.remove();
        return Ok(Completion::Completed);
    }
    let mut words = String::new();
    for fault in [outcome.err(), ended.err()].into_iter().flatten() {
        words.push_str(&format!("{fault}\n"));
    }
    words.push_str(&format!("after {took:?}\n{}", world.story()));
    Err(Failed::from(words))
}

fn panic_words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked").to_owned()
}

/// Makes Ctrl-C, SIGTERM and a lost terminal end the processes of every world before this process ends.
/// To be called before any thread is started: the signals are blocked in all of them.
pub fn end_worlds_on_interrupt() -> Result {
    // Handled and not blocked: a blocked signal stays blocked in all that is started, down to Nushell, whose Ctrl-C
    // then does nothing.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::spawn(move || {
        let signal = signals.forever().next().unwrap_or(SIGTERM);
        for folder in World::living() {
            processes::kill_all(&folder);
            mounts::unmount_below(&folder);
            // Best effort: what cannot be removed is of no harm.
            let _ = std::fs::remove_dir_all(&folder);
        }
        std::process::exit(128 + signal);
    });
    Ok(())
}
