use super::*;

const TERM: i32 = libc::SIGTERM;

fn up() -> (Table, Instant) {
    let now = Instant::now();
    let mut table = Table::new(false);
    assert_eq!(table.step(Event::Spawned, now), [Action::ArmReady]);
    assert_eq!(table.step(Event::Reachable(true), now), [Action::Disarm, Action::SayReady]);
    assert_eq!(table.phase(), Phase::Up);
    (table, now)
}

#[test]
fn ready_is_said_once_and_only_when_all_is() {
    let now = Instant::now();
    let mut table = Table::new(true);
    assert!(table.step(Event::Reachable(true), now).is_empty(), "nothing runs yet");
    table.step(Event::Spawned, now);
    assert!(table.step(Event::Reachable(true), now).is_empty(), "the service has not said it");
    table.step(Event::Reachable(false), now);
    assert!(table.step(Event::ServiceReady, now).is_empty(), "a socket was lost again");
    assert_eq!(table.step(Event::Reachable(true), now), [Action::Disarm, Action::SayReady]);
    assert!(table.step(Event::Reachable(true), now).is_empty());
}

#[test]
fn ends_as_the_service_did_once_nothing_of_it_is_left() {
    let (mut table, now) = up();
    let gone = [Action::Unpin, Action::StopRest, Action::ArmStop];
    assert_eq!(table.step(Event::Ended(0x0700), now), gone);
    assert!(!table.cares());
    assert_eq!(table.step(Event::Deadline, now), [Action::KillAll]);
    assert_eq!(table.step(Event::Empty, now), [Action::End(End::Of(0x0700))]);
}

#[test]
fn a_stop_is_no_loss() {
    let (mut table, now) = up();
    assert_eq!(table.step(Event::Signal(libc::SIGHUP), now), [Action::Forward(libc::SIGHUP)]);
    assert!(table.cares());
    assert_eq!(table.step(Event::Signal(TERM), now), [Action::Disarm, Action::Unpin, Action::Forward(TERM)]);
    assert!(!table.cares());
    assert!(table.step(Event::Lost, now).is_empty());
    assert_eq!(table.step(Event::Signal(TERM), now), [Action::Forward(TERM)], "the service counts them");
    table.step(Event::Ended(TERM), now);
    assert_eq!(table.step(Event::Signal(TERM), now), [Action::KillAll], "what is left is not waited for");
    assert_eq!(table.step(Event::Empty, now), [Action::End(End::Of(TERM))]);
}

#[test]
fn a_lost_socket_restarts_it_under_a_limit() {
    let (mut table, mut now) = up();
    for _ in 0..RESTARTS {
        assert_eq!(table.step(Event::Lost, now), [Action::Unpin, Action::Stop, Action::ArmStop]);
        assert_eq!(table.step(Event::Ended(TERM), now), [Action::StopRest]);
        assert_eq!(table.step(Event::Empty, now), [Action::Disarm, Action::Respawn]);
        table.step(Event::Spawned, now);
        table.step(Event::Reachable(true), now);
        assert_eq!(table.phase(), Phase::Up);
    }
    let limit = [Action::TellLimit, Action::Unpin, Action::Stop, Action::ArmStop];
    assert_eq!(table.step(Event::Lost, now), limit);
    table.step(Event::Ended(0), now);
    assert_eq!(table.step(Event::Empty, now), [Action::End(End::With(FAULT))]);

    let (mut table, _) = up();
    for _ in 0..20 {
        assert_eq!(
            table.step(Event::Lost, now),
            [Action::Unpin, Action::Stop, Action::ArmStop],
            "now and then"
        );
        table.step(Event::Ended(0), now);
        table.step(Event::Empty, now);
        table.step(Event::Spawned, now);
        now += WINDOW / 4;
    }
}

#[test]
fn told_to_stop_in_a_restart_it_does_not_start_again() {
    let (mut table, now) = up();
    table.step(Event::Lost, now);
    assert_eq!(table.step(Event::Signal(TERM), now), [Action::Disarm, Action::Forward(TERM)]);
    table.step(Event::Ended(TERM), now);
    assert_eq!(table.step(Event::Empty, now), [Action::End(End::Of(TERM))]);

    let (mut table, now) = up();
    table.step(Event::Lost, now);
    table.step(Event::Ended(0), now);
    assert!(table.step(Event::Signal(TERM), now).is_empty(), "what is left is being stopped already");
    assert_eq!(table.step(Event::Empty, now), [Action::End(End::Of(TERM))]);
}

#[test]
fn what_is_not_ready_in_time_is_ended_with_a_fault() {
    let now = Instant::now();
    let mut table = Table::new(false);
    table.step(Event::Spawned, now);
    assert_eq!(table.step(Event::Deadline, now), [Action::Unpin, Action::Stop, Action::ArmStop]);
    assert_eq!(table.step(Event::Deadline, now), [Action::KillAll]);
    assert_eq!(table.step(Event::Ended(0), now), [Action::StopRest]);
    assert_eq!(table.step(Event::Empty, now), [Action::End(End::With(FAULT))]);
    assert_eq!(Table::new(false).step(Event::Refused(127), now), [Action::End(End::With(127))]);
}

/// Whatever happens in whatever order: it is never spawned twice, never ends while something of it lives, never asks for
/// a signal to nobody, and a process that was told to stop in vain is always killed in the end.
#[test]
fn every_order_of_events_keeps_the_promises() {
    let now = Instant::now();
    let events = [
        Event::Reachable(true),
        Event::ServiceReady,
        Event::Signal(TERM),
        Event::Signal(libc::SIGHUP),
        Event::Lost,
        Event::Ended(TERM),
        Event::Empty,
        Event::Deadline,
    ];
    let depth = 6;
    for mut order in 0..events.len().pow(depth) {
        let mut table = Table::new(true);
        table.step(Event::Spawned, now);
        let (mut main, mut any, mut armed, mut over) = (true, true, true, false);
        for _ in 0..depth {
            let event = events[order % events.len()];
            order /= events.len();
            // What cannot happen in this world is left out.
            let possible = match event {
                Event::Ended(_) => main,
                Event::Empty => any && !main,
                Event::Deadline => armed,
                _ => true,
            };
            if !possible || over {
                continue;
            }
            main &= !matches!(event, Event::Ended(_));
            any &= event != Event::Empty;
            armed &= event != Event::Deadline;
            for action in table.step(event, now) {
                match action {
                    Action::Forward(_) | Action::Stop => assert!(main, "a signal to nobody"),
                    Action::Respawn => {
                        assert!(!any, "spawned beside what is left");
                        table.step(Event::Spawned, now);
                        (main, any, armed) = (true, true, true);
                    }
                    Action::End(_) => {
                        assert!(!any, "ended before the service");
                        over = true;
                    }
                    Action::ArmReady | Action::ArmStop => armed = true,
                    Action::Disarm => armed = false,
                    Action::SayReady => assert!(main),
                    Action::Unpin | Action::StopRest | Action::KillAll | Action::TellLimit => {}
                }
            }
        }
    }
}
