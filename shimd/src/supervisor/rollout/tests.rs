use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

type Graph = BTreeMap<Name, Vec<Name>>;

fn names(words: &str) -> Vec<Name> {
    words.split_whitespace().map(Name::from).collect()
}

/// `web: db cache` on each line; `order` is that of the lines, which must name dependencies first.
fn graph(lines: &str) -> (Vec<Name>, Graph) {
    let lines = lines.lines().filter_map(|l| l.trim().split_once(':'));
    let edges: Vec<(Name, Vec<Name>)> = lines.map(|(name, needs)| (Name::from(name), names(needs))).collect();
    (edges.iter().map(|(name, _)| name.clone()).collect(), edges.into_iter().collect())
}

fn needs(graph: &Graph, name: &Name) -> Vec<Name> {
    graph.get(name).cloned().unwrap_or_default()
}

/// A plan, and machines that do at once what it asks of them.
struct Run {
    plan: Rollout,
    graph: Graph,
    order: Vec<Name>,
    /// Who stops, and who starts, at this moment.
    stopping: BTreeSet<Name>,
    starting: BTreeSet<Name>,
    /// `-web`: told to stop, `web`: down, `+web`: may start, `!web`: through.
    journal: Vec<String>,
}

impl Run {
    fn new(lines: &str, bound: usize) -> Run {
        let (order, graph) = graph(lines);
        Run::of(order, graph, bound)
    }

    fn of(order: Vec<Name>, graph: Graph, bound: usize) -> Run {
        let (stopping, starting) = Default::default();
        Run { plan: Rollout::new(bound), graph, order, stopping, starting, journal: Vec::new() }
    }

    fn restart(&mut self, wanted: &[Name]) {
        let stopping = &self.stopping;
        self.plan.add(wanted, Task::Restart { clean: true }, |n| stopping.contains(n));
        // Whoever came up, and is wanted again, is told to stop in its turn.
        for name in wanted {
            self.starting.remove(name);
        }
        self.plan.order(&self.order, |name| needs(&self.graph, name));
    }

    fn stop(&mut self, wanted: &[Name]) {
        self.plan.add(wanted, Task::Stop, |_| false);
        self.plan.order(&self.order, |name| needs(&self.graph, name));
    }

    fn advance(&mut self) {
        if !self.plan.has_moved() {
            return;
        }
        for name in self.plan.down_and_free() {
            if self.plan.may_start(&name) {
                self.journal.push(format!("+{name}"));
                self.starting.insert(name);
            }
        }
        while let Some((name, _)) = self.plan.next() {
            self.journal.push(format!("-{name}"));
            self.stopping.insert(name);
        }
    }

    fn stopped(&mut self, name: &str) {
        assert!(self.stopping.remove(name), "{name} does not stop: {:?}", self.journal);
        self.journal.push(name.to_owned());
        self.plan.stands(name, Stand::Down);
        self.advance();
    }

    /// Down, and to stay so.
    fn gone(&mut self, name: &str) {
        assert!(self.stopping.remove(name), "{name} does not stop: {:?}", self.journal);
        self.journal.push(name.to_owned());
        self.plan.stands(name, Stand::Settled);
        self.advance();
    }

    fn settled(&mut self, name: &str) {
        assert!(self.starting.remove(name), "{name} does not start: {:?}", self.journal);
        self.journal.push(format!("!{name}"));
        self.plan.stands(name, Stand::Settled);
        self.advance();
    }

    fn said(&mut self) -> String {
        self.advance();
        std::mem::take(&mut self.journal).join(" ")
    }
}

#[test]
fn dependents_stop_first_and_start_last() {
    let mut run = Run::new("db:\nweb: db\nmail: db", 4);
    run.restart(&names("db web mail"));
    assert_eq!(run.said(), "-mail -web");
    run.stopped("web");
    run.stopped("mail");
    assert_eq!(run.said(), "web mail -db");
    run.stopped("db");
    assert_eq!(run.said(), "db +db");
    run.settled("db");
    assert_eq!(run.said(), "!db +mail +web");
    run.settled("web");
    run.settled("mail");
    assert!(run.plan.is_empty());
}

#[test]
fn the_order_holds_through_services_that_are_not_restarted() {
    let mut run = Run::new("db:\npool: db\nweb: pool", 4);
    run.restart(&names("web db"));
    assert_eq!(run.said(), "-web");
    run.stopped("web");
    run.stopped("db");
    assert_eq!(run.said(), "web -db db +db");
}

#[test]
fn so_many_are_at_work_and_who_is_down_comes_first() {
    let mut run = Run::new("a:\nb:\nc:\nd:", 2);
    run.restart(&names("a b c d"));
    assert_eq!(run.said(), "-d -c");
    run.stopped("c");
    assert_eq!(run.said(), "c +c", "not -b: it still serves");
    run.settled("c");
    assert_eq!(run.said(), "!c -b");
}

#[test]
fn one_family_is_through_before_the_next_begins() {
    let mut run = Run::new("db1:\ndb2:\nweb1: db1\nweb2: db2", 1);
    run.restart(&names("db1 db2 web1 web2"));
    assert_eq!(run.said(), "-web2");
    run.stopped("web2");
    assert_eq!(run.said(), "web2 -db2");
    run.stopped("db2");
    run.settled("db2");
    assert_eq!(run.said(), "db2 +db2 !db2 +web2");
}

#[test]
fn a_single_restart_does_not_queue_behind_a_large_one() {
    let mut run = Run::new("a:\nb:\nc:", 1);
    run.restart(&names("a b"));
    assert_eq!(run.said(), "-b");
    run.restart(&names("c"));
    assert_eq!(run.said(), "-c");
}

#[test]
fn a_second_command_joins_what_is_on_its_way_down_and_repeats_what_comes_up() {
    let mut run = Run::new("a:", 1);
    run.restart(&names("a"));
    run.said();
    run.restart(&names("a"));
    assert_eq!(run.said(), "", "it stops already");
    run.stopped("a");
    assert_eq!(run.said(), "a +a");
    run.restart(&names("a"));
    assert_eq!(run.said(), "-a", "the new instance is older than the command");
}

#[test]
fn who_joins_while_at_work_keeps_its_place() {
    let mut run = Run::new("a:\nb:\nc:\nd:", 1);
    run.restart(&names("a b"));
    run.restart(&names("c d"));
    assert_eq!(run.said(), "-b -d");
    run.restart(&names("b d"));
    assert_eq!(run.said(), "", "one at a time in each of the first two restarts");
    run.stopped("b");
    run.settled("b");
    assert_eq!(run.said(), "b +b !b -a");
}

#[test]
fn a_dependency_that_leaves_lets_its_dependents_go_on() {
    let mut run = Run::new("db:\nweb: db", 4);
    run.restart(&names("db web"));
    run.said();
    run.stopped("web");
    run.stopped("db");
    run.plan.remove("db");
    assert_eq!(run.said(), "web -db db +db +web");
    assert!(!run.plan.holds("db") && run.plan.holds("web"));
}

#[test]
fn the_order_holds_across_one_that_leaves() {
    let mut run = Run::new("db:\npool: db\nweb: pool", 4);
    run.restart(&names("web pool db"));
    assert_eq!(run.said(), "-web");
    run.plan.remove("pool");
    assert_eq!(run.said(), "");
    run.stopped("web");
    run.stopped("db");
    assert_eq!(run.said(), "web -db db +db");
}

#[test]
fn who_is_down_and_finds_a_dependency_of_its_own_in_the_way_holds_no_place() {
    let mut run = Run::new("a:\nb:", 1);
    run.restart(&names("a b"));
    assert_eq!(run.said(), "-b");
    run.stopping.remove("b");
    run.plan.stands("b", Stand::Down);
    // It is asked, and does not take its place.
    assert_eq!(run.plan.down_and_free(), names("b"));
    assert_eq!(run.plan.next(), Some((Name::from("a"), Task::Restart { clean: true })));
    assert!(!run.plan.may_start("b"), "the place is taken");
    run.plan.stands("a", Stand::Settled);
    assert!(run.plan.may_start("b"));
}

#[test]
fn a_clean_restart_stays_clean() {
    let mut plan = Rollout::new(1);
    plan.add(&names("a"), Task::Restart { clean: true }, |_| false);
    plan.add(&names("a"), Task::Restart { clean: false }, |_| false);
    plan.order(&names("a"), |_| Vec::new());
    assert_eq!(plan.next(), Some((Name::from("a"), Task::Restart { clean: true })));
}

#[test]
fn those_that_stop_leave_in_order_and_wait_for_no_place() {
    let mut run = Run::new("db:\nweb: db\nmail: db\nfeed:", 1);
    run.stop(&names("db web mail feed"));
    assert_eq!(run.said(), "-feed -mail -web");
    run.gone("web");
    assert_eq!(run.said(), "web");
    run.gone("mail");
    assert_eq!(run.said(), "mail -db");
    run.gone("db");
    assert!(run.plan.holds("feed") && !run.plan.holds("db"));
}

#[test]
fn a_stop_overtakes_a_restart_and_a_restart_a_stop() {
    let mut run = Run::new("db:\nweb: db", 4);
    run.restart(&names("db web"));
    assert_eq!(run.said(), "-web");
    run.stop(&names("db"));
    assert!(run.plan.stops("db") && !run.plan.stops("web"));
    run.stopped("web");
    assert_eq!(run.said(), "web -db", "what depends on it is down");
    run.restart(&names("db"));
    assert!(!run.plan.stops("db") && run.plan.queues("db"), "what it was told last");
    assert_eq!(run.plan.next(), Some((Name::from("db"), Task::Restart { clean: true })));
}

#[test]
fn new_specs_draw_new_edges() {
    let mut run = Run::new("a:\nb:", 1);
    run.restart(&names("a b"));
    assert_eq!(run.said(), "-b");
    (run.order, run.graph) = graph("a:\nb: a");
    let (order, graph) = (run.order.clone(), run.graph.clone());
    run.plan.order(&order, |name| needs(&graph, name));
    run.stopped("b");
    assert_eq!(run.said(), "b -a", "b waits for a now");
    run.stopped("a");
    run.settled("a");
    assert_eq!(run.said(), "a +a !a +b");
}

/// What each depends on, the commands, the bound, and dice for what happens next.
type Plans = (Vec<Vec<usize>>, Vec<Vec<usize>>, usize, Vec<u8>);

/// Some are not restarted; further commands come in the middle.
fn plans() -> impl Strategy<Value = Plans> {
    (1..14usize).prop_flat_map(|count| {
        let edges = proptest::collection::vec(proptest::collection::vec(0..count, 0..4), count);
        let commands = proptest::collection::vec(proptest::collection::vec(0..count, 1..=count), 1..4);
        (edges, commands, 1..5usize, proptest::collection::vec(any::<u8>(), 0..200))
    })
}

proptest! {
    #[test]
    fn every_service_is_restarted_in_order_within_the_bound((edges, commands, bound, dice) in plans()) {
        let name = |i: usize| Name::from(format!("s{i:02}"));
        let order: Vec<Name> = (0..edges.len()).map(name).collect();
        // A dependency of a later number would close a circle: the plan must leave it out by itself.
        let graph: Graph =
            edges.iter().enumerate().map(|(i, to)| (name(i), to.iter().map(|j| name(*j)).collect())).collect();
        let place = |n: &Name| order.iter().position(|o| o == n);
        // Who depends on whom, also through others.
        let mut below: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
        for one in &order {
            let direct: Vec<Name> = needs(&graph, one).into_iter().filter(|n| place(n) < place(one)).collect();
            let all = direct.iter().flat_map(|d| below[d].iter().chain([d])).cloned().collect();
            below.insert(one.clone(), all);
        }
        let mut run = Run::of(order.clone(), graph, bound);
        let mut commands: Vec<Vec<Name>> =
            commands.into_iter().map(|c| c.into_iter().map(name).collect::<BTreeSet<_>>().into_iter().collect()).collect();
        let wanted: BTreeSet<Name> = commands.iter().flatten().cloned().collect();
        let groups = commands.len();
        run.restart(&commands.remove(0));
        run.advance();
        let mut dice = dice.into_iter().chain(std::iter::repeat(0));
        let (mut stops, mut ends) = (BTreeMap::<Name, usize>::new(), BTreeMap::<Name, usize>::new());
        for _round in 0..10_000 {
            prop_assert!(run.stopping.len() + run.starting.len() <= bound * groups);
            let busy: Vec<(Name, bool)> = run.stopping.iter().map(|n| (n.clone(), true))
                .chain(run.starting.iter().map(|n| (n.clone(), false))).collect();
            // One that a later command names may stop beside a dependency that is restarted already.
            for (one, stops) in busy.iter().filter(|(_, stops)| groups == 1 || !stops) {
                let busy_too = busy.iter().find(|(other, _)| below[one].contains(other));
                prop_assert!(busy_too.is_none(), "{one} ({stops}) and {busy_too:?}: {:?}", run.journal);
            }
            let roll = usize::from(dice.next().unwrap_or_default());
            if roll % 7 == 0 && !commands.is_empty() {
                run.restart(&commands.remove(0));
                run.advance();
                continue;
            }
            let Some((one, stops_now)) = busy.get(roll % busy.len().max(1)).cloned() else {
                if commands.is_empty() { break } else { continue }
            };
            if stops_now {
                *stops.entry(one.clone()).or_default() += 1;
                run.stopped(&one);
            } else {
                *ends.entry(one.clone()).or_default() += 1;
                run.settled(&one);
            }
        }
        prop_assert!(run.plan.is_empty(), "it stands still: {:?}", run.journal);
        let through: BTreeSet<Name> = ends.keys().cloned().collect();
        prop_assert_eq!(&through, &wanted);
        if groups == 1 {
            prop_assert!(stops.values().chain(ends.values()).all(|n| *n == 1), "once each: {:?}", run.journal);
        }
    }
}
