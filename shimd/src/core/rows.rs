//! Single rows of the tables, read as: so it stood, this happened, this was asked for.

use shimd_api::spec::RestartPolicy;

use super::machine::*;
use super::policy::Policy;

const POLICY: Policy = Policy { restart: RestartPolicy::Never, limit: 2 };
const GAPLESS: Event = Event::Restart { clean: false, gapless: true };
const GAPLESS_CLEAN: Event = Event::Restart { clean: true, gapless: true };

/// A service that runs with its first instance.
fn running() -> Machine {
    let mut machine = Machine::new();
    after(
        &mut machine,
        &[
            Event::Start,
            Event::Deps(Deps::Ready),
            Event::Cleaned,
            Event::Spawned,
            Event::Serving(true),
            Event::Published,
        ],
    );
    assert_eq!(machine.phase, Phase::Running);
    machine
}

/// The last event's actions.
fn after(machine: &mut Machine, events: &[Event]) -> Vec<Action> {
    events.iter().map(|event| machine.step(*event, POLICY)).last().unwrap_or_default()
}

#[test]
fn the_windows_first_loss_restarts_at_once_the_next_after_the_delay_and_then_no_more() {
    let mut machine = running();
    let actions = after(&mut machine, &[Event::Timer(Timer::Window), Event::Lost]);
    assert_eq!(machine.phase, Phase::Stopping(Next::Again));
    assert_eq!(actions, [Action::Arm(Timer::Stop), Action::Signal]);
    let clean = Restart { clean: true, attempt: 1, leaving: true, gapless: false };
    assert_eq!((machine.restart, machine.want), (Some(clean), Want::Up));

    let mut machine = running();
    let actions = after(&mut machine, &[Event::Lost, Event::TreeGone]);
    assert_eq!((machine.phase, machine.starts), (Phase::Backoff, 1));
    assert_eq!(actions.last(), Some(&Action::Arm(Timer::Backoff)));
    let up = [Event::Timer(Timer::Backoff), Event::Deps(Deps::Ready), Event::Cleaned, Event::Cleaned];
    after(&mut machine, &up);
    after(&mut machine, &[Event::Spawned, Event::Serving(true), Event::Published]);
    assert_eq!((machine.phase, machine.starts), (Phase::Running, 2));
    assert_eq!(after(&mut machine, &[Event::Lost]), []);
    assert_eq!(machine.phase, Phase::Impaired, "its process is left alone");
}

#[test]
fn a_gapless_restart_swaps_the_two_once_the_new_one_is_published() {
    let mut machine = running();
    assert_eq!(after(&mut machine, &[GAPLESS]), [Action::Beside(Deed::Clean)]);
    assert_eq!(after(&mut machine, &[Event::Cleaned]).last(), Some(&Action::Beside(Deed::Spawn)));
    let verify = [Action::Arm(Timer::Beside), Action::Beside(Deed::Verify)];
    assert_eq!(after(&mut machine, &[Event::Spawned]), verify);
    assert_eq!((machine.phase, machine.settled()), (Phase::Running, false));
    let publish = [Action::Disarm(Timer::Beside), Action::Beside(Deed::Publish)];
    assert_eq!(after(&mut machine, &[Event::Beside(Sign::Serving)]), publish);
    let retire = [Action::Swap, Action::Verify, Action::Arm(Timer::Beside), Action::Beside(Deed::Drain)];
    assert_eq!(after(&mut machine, &[Event::Beside(Sign::Published)]), retire);
    let stop = [Action::Arm(Timer::Beside), Action::Beside(Deed::Signal)];
    assert_eq!(after(&mut machine, &[Event::Beside(Sign::Drained)]), stop);
    after(&mut machine, &[Event::Beside(Sign::Gone)]);
    assert_eq!((machine.phase, machine.beside, machine.restart), (Phase::Running, None, None));
}

#[test]
fn a_gapless_restart_of_an_impaired_one_is_beside_it_too() {
    let mut machine = running();
    after(&mut machine, &[Event::Serving(false)]);
    assert_eq!(after(&mut machine, &[GAPLESS]), [Action::Beside(Deed::Clean)]);
    assert_eq!(machine.phase, Phase::Impaired);
    after(&mut machine, &[Event::Cleaned, Event::Spawned]);
    after(&mut machine, &[Event::Beside(Sign::Serving), Event::Beside(Sign::Published)]);
    assert_eq!(machine.phase, Phase::Running, "with the new one");
}

#[test]
fn a_new_one_that_fails_is_stopped_and_the_old_one_is_put_back() {
    let mut machine = running();
    after(&mut machine, &[GAPLESS, Event::Cleaned, Event::Spawned, Event::Beside(Sign::Serving)]);
    let actions = after(&mut machine, &[Event::Beside(Sign::PublishFailed)]);
    let back = [Action::Publish, Action::Arm(Timer::Beside), Action::Beside(Deed::Signal)];
    assert_eq!(actions, back);
    assert_eq!(
        after(&mut machine, &[Event::Published, Event::Beside(Sign::Gone)]),
        [Action::Disarm(Timer::Beside)]
    );
    assert_eq!((machine.phase, machine.beside, machine.restart), (Phase::Running, None, None));
}

#[test]
fn a_clean_one_that_fails_is_tried_once_more_beside_the_old_one() {
    let mut machine = running();
    after(&mut machine, &[GAPLESS_CLEAN, Event::Cleaned, Event::Spawned, Event::Timer(Timer::Beside)]);
    let actions = after(&mut machine, &[Event::Beside(Sign::Gone)]);
    assert_eq!(actions.last(), Some(&Action::Beside(Deed::Clean)));
    after(&mut machine, &[Event::Cleaned, Event::SpawnFailed { transient: true }]);
    assert_eq!((machine.phase, machine.beside, machine.restart), (Phase::Running, None, None));
}

#[test]
fn the_old_one_ending_by_itself_leaves_a_plain_start_going_on() {
    let mut machine = running();
    after(&mut machine, &[GAPLESS, Event::Cleaned]);
    let actions = after(&mut machine, &[Event::Exited { success: false }]);
    assert_eq!(actions.first(), Some(&Action::Swap));
    assert_eq!((machine.phase, machine.beside), (Phase::Spawning, Some(Beside::Stopping)));
    let verify = [Action::Arm(Timer::Start), Action::Verify];
    assert_eq!(after(&mut machine, &[Event::Spawned]), verify);
}

#[test]
fn a_stop_takes_both() {
    let mut machine = running();
    after(&mut machine, &[GAPLESS, Event::Cleaned, Event::Spawned, Event::Stop]);
    assert_eq!((machine.phase, machine.beside), (Phase::Stopping(Next::Down), Some(Beside::Stopping)));
    after(&mut machine, &[Event::TreeGone]);
    assert!(!machine.settled());
    after(&mut machine, &[Event::Beside(Sign::Gone)]);
    assert_eq!((machine.phase, machine.settled()), (Phase::Inactive, true));
}
