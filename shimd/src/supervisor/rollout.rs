//! A restart or a stop of many: who may stop and who may start, and when. Pure; `commands` and the supervisor's hooks run it.
//!
//! ```text
//! stage     meaning                                            leaves it when
//! Queued    not told to stop or restart yet: it serves on      its group has a place, and nobody in the plan that
//!                                                              depends on it is Queued or AtWork: then it is told
//! AtWork    it stops, is cleaned, or comes up: holds a place   its machine waits (Down), or has settled (gone)
//! Down      its instance is gone, the next one waits           nothing that it depends on is in the plan, what it
//!                                                              depends on runs, and its group has a place (AtWork)
//! ```
//! A service leaves the plan when its machine has settled, well or ill; so a dependency that fails lets its dependents
//! go on, and the machine then says of them which dependency it is.
//!
//! - Order: a dependent is down before what it depends on is told to stop, and starts after that is up, also where
//!   they depend on each other through services that are not in the plan.
//! - Bound: one restart (a group) has so many services at work at a time. Each command has places of its own: a
//!   restart of one service does not queue behind one of a thousand. A stop has places for all.
//! - What is down comes first, and related services come one after another: nobody is down for longer than need be.
//! - Nothing stands still: were nobody at work, then the first Queued one that no other Queued one depends on may stop,
//!   or, where nobody is Queued, the first Down one that depends on no other may start. Edges go from later to earlier
//!   places of one order, so a circle cannot be written down here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A service's name.
pub type Name = Arc<str>;

/// How a service stands that was told to stop or to restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// It is on its way down, or up.
    AtWork,
    /// Without an instance, it waits for its dependencies.
    Down,
    /// Nothing more happens by itself.
    Settled,
}

/// What a service is told in its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// To stop.
    Stop,
    /// To restart.
    Restart {
        /// `--clean`
        clean: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Queued,
    AtWork,
    Down,
}

struct Item {
    group: u64,
    task: Task,
    stage: Stage,
    /// Its place in the order of beginning.
    rank: usize,
    needs: Vec<Name>,
    needed_by: Vec<Name>,
}

/// The services that are being restarted or stopped, or are to be.
pub struct Rollout {
    bound: usize,
    groups: u64,
    items: HashMap<Name, Item>,
    /// Who is Queued, and who is Down, in the order in which they get places.
    queued: BTreeSet<(u64, usize, Name)>,
    down: BTreeSet<(u64, usize, Name)>,
    at_work: HashMap<u64, usize>,
    moved: bool,
}

impl Rollout {
    /// A plan that lets each restart have `bound` services at work at a time, one at least.
    pub fn new(bound: usize) -> Rollout {
        Rollout {
            bound: bound.max(1),
            groups: 0,
            items: HashMap::new(),
            queued: BTreeSet::new(),
            down: BTreeSet::new(),
            at_work: HashMap::new(),
            moved: false,
        }
    }

    /// Takes a command's services into the plan; [`order`](Self::order) must follow. Gives those of them that are to
    /// restart and whose new instance is not on its way yet (`goes_down`, or Down): the restart that they are in is this
    /// one too.
    pub fn add(&mut self, names: &[Name], task: Task, goes_down: impl Fn(&Name) -> bool) -> Vec<Name> {
        self.groups += 1;
        self.moved = true;
        let mut joined = Vec::new();
        for name in names {
            let old = self.take(name);
            let stage = match &old {
                _ if task == Task::Stop => Stage::Queued,
                Some(item) if item.task == Task::Stop => Stage::Queued,
                Some(item) if item.stage == Stage::AtWork && !goes_down(name) => Stage::Queued,
                Some(item) => item.stage,
                None => Stage::Queued,
            };
            if stage != Stage::Queued {
                joined.push(name.clone());
            }
            let clean = Task::Restart { clean: true };
            // Who is at work keeps the place that it has: else its old group could let another in, beyond the bound.
            let kept = old.as_ref().filter(|_| stage == Stage::AtWork).map(|o| o.group);
            let was_clean = old.is_some_and(|o| o.task == clean);
            let task = if was_clean && task != Task::Stop { clean } else { task };
            let (group, needs, needed_by) = (kept.unwrap_or(self.groups), Vec::new(), Vec::new());
            self.put(name.clone(), Item { group, task, stage, rank: 0, needs, needed_by });
        }
        joined
    }

    /// Draws the edges anew. `order`: every service of the plan and all that they depend on, dependencies first.
    pub fn order(&mut self, order: &[Name], depends_on: impl Fn(&Name) -> Vec<Name>) {
        // For each service of the order, the nearest ones in the plan that it depends on.
        let mut nearest: HashMap<&Name, Vec<Name>> = HashMap::new();
        for name in order {
            let mut needs: Vec<Name> = Vec::new();
            for dependency in depends_on(name) {
                // What is not placed yet would close a circle.
                let Some(beyond) = nearest.get(&dependency) else { continue };
                if self.items.contains_key(&dependency) {
                    needs.push(dependency);
                } else {
                    needs.extend(beyond.iter().cloned());
                }
            }
            needs.sort_unstable();
            needs.dedup();
            nearest.insert(name, needs);
        }
        let ranks = ranks(order.iter().filter(|n| self.items.contains_key(*n)), &nearest);
        let mut needed_by: HashMap<Name, Vec<Name>> = HashMap::new();
        let names: Vec<Name> = self.items.keys().cloned().collect();
        for name in names {
            let Some(mut item) = self.take(&name) else { continue };
            item.needs = nearest.remove(&name).unwrap_or_default();
            item.rank = ranks.get(&name).copied().unwrap_or_default();
            for need in &item.needs {
                needed_by.entry(need.clone()).or_default().push(name.clone());
            }
            self.put(name, item);
        }
        for (name, item) in &mut self.items {
            item.needed_by = needed_by.remove(name).unwrap_or_default();
        }
        self.moved = true;
    }

    /// Whether the service is to be restarted or stopped, or is on its way.
    pub fn holds(&self, name: &str) -> bool {
        self.items.contains_key(name)
    }

    /// Whether the service has not been told yet.
    pub fn queues(&self, name: &str) -> bool {
        self.items.get(name).is_some_and(|i| i.stage == Stage::Queued)
    }

    /// Whether the service is to stop, or does.
    pub fn stops(&self, name: &str) -> bool {
        self.items.get(name).is_some_and(|i| i.task == Task::Stop)
    }

    /// Whether nobody is held.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Every service of the plan.
    pub fn names(&self) -> Vec<Name> {
        self.items.keys().cloned().collect()
    }

    /// Forgets a service: another command, or its end, has overtaken this one.
    pub fn remove(&mut self, name: &str) {
        let Some(item) = self.take(name) else { return };
        self.moved = true;
        // Whoever it stood between keep their order.
        for (dependent, need) in item.needed_by.iter().flat_map(|d| item.needs.iter().map(move |n| (d, n))) {
            if !self.items.contains_key(need) || !self.items.contains_key(dependent) {
                continue;
            }
            if let Some(dependent) = self.items.get_mut(dependent)
                && !dependent.needs.contains(need)
            {
                dependent.needs.push(need.clone());
            }
            if let Some(need) = self.items.get_mut(need)
                && !need.needed_by.contains(dependent)
            {
                need.needed_by.push(dependent.clone());
            }
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Rollout { groups: self.groups, ..Rollout::new(self.bound) };
    }

    /// Whether a service that waits must wait for another of the plan.
    pub fn waits(&self, name: &str) -> bool {
        self.items.get(name).is_some_and(|i| self.needs_one(i))
    }

    /// A service that waits could start now: whether it may. What is not in the plan always may.
    pub fn may_start(&mut self, name: &str) -> bool {
        match self.items.get(name) {
            None => true,
            Some(item) if item.stage == Stage::AtWork => true,
            Some(item)
                if item.stage == Stage::Queued || self.needs_one(item) || !self.has_place(item.group) =>
            {
                false
            }
            Some(_) => {
                self.set(name, Stage::AtWork);
                true
            }
        }
    }

    /// How a service stands after a step of its machine.
    pub fn stands(&mut self, name: &str, stand: Stand) {
        match (self.items.get(name).map(|i| i.stage), stand) {
            (None | Some(Stage::Queued), _) => {}
            (Some(_), Stand::Settled) => self.remove(name),
            (Some(Stage::AtWork), Stand::Down) => self.set(name, Stage::Down),
            (Some(Stage::Down), Stand::AtWork) => self.set(name, Stage::AtWork),
            (Some(Stage::Down), Stand::Down) | (Some(Stage::AtWork), Stand::AtWork) => {}
        }
    }

    /// Whether anything has moved since this was last asked.
    pub fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Those that are down and wait for nobody of the plan, while their group has places: each is to be asked for its
    /// dependencies, and [`may_start`](Self::may_start) then.
    pub fn down_and_free(&self) -> Vec<Name> {
        let mut left: HashMap<u64, usize> = HashMap::new();
        let mut free = Vec::new();
        for (group, _, name) in &self.down {
            let left = left.entry(*group).or_insert_with(|| self.places(*group));
            if *left > 0 && !self.waits(name) {
                // Not counted down: a dependency outside the plan may hold it up.
                free.push(name.clone());
            }
        }
        free
    }

    /// The next service to be told something, and what; it is at work from now.
    pub fn next(&mut self) -> Option<(Name, Task)> {
        let down = |n: &Name| self.items.get(n).is_none_or(|i| i.stage == Stage::Down);
        let next = self.queued.iter().find_map(|(group, _, name)| {
            let item = self.items.get(name)?;
            let may = (item.task == Task::Stop || self.has_place(*group)) && item.needed_by.iter().all(down);
            may.then(|| (name.clone(), item.task))
        })?;
        self.set(&next.0, Stage::AtWork);
        Some(next)
    }

    fn needs_one(&self, item: &Item) -> bool {
        item.needs.iter().any(|n| self.items.contains_key(n))
    }

    fn places(&self, group: u64) -> usize {
        self.bound.saturating_sub(self.at_work.get(&group).copied().unwrap_or_default())
    }

    fn has_place(&self, group: u64) -> bool {
        self.places(group) > 0
    }

    fn set(&mut self, name: &str, stage: Stage) {
        if let Some((name, _)) = self.items.get_key_value(name)
            && let name = name.clone()
            && let Some(mut item) = self.take(&name)
        {
            item.stage = stage;
            self.put(name, item);
            self.moved = true;
        }
    }

    fn take(&mut self, name: &str) -> Option<Item> {
        let (name, item) = self.items.remove_entry(name)?;
        let key = (item.group, item.rank, name);
        match item.stage {
            Stage::Queued => drop(self.queued.remove(&key)),
            Stage::Down => drop(self.down.remove(&key)),
            Stage::AtWork => {
                if let Some(count) = self.at_work.get_mut(&item.group) {
                    *count -= 1;
                    if *count == 0 {
                        self.at_work.remove(&item.group);
                    }
                }
            }
        }
        Some(item)
    }

    fn put(&mut self, name: Name, item: Item) {
        let key = (item.group, item.rank, name.clone());
        match item.stage {
            Stage::Queued => drop(self.queued.insert(key)),
            Stage::Down => drop(self.down.insert(key)),
            Stage::AtWork => *self.at_work.entry(item.group).or_default() += 1,
        }
        self.items.insert(name, item);
    }
}

/// The order of beginning: dependents first, and related services one after another.
fn ranks<'a>(
    order: impl DoubleEndedIterator<Item = &'a Name>,
    needs: &HashMap<&Name, Vec<Name>>,
) -> HashMap<Name, usize> {
    let order: Vec<&Name> = order.rev().collect();
    let place: HashMap<&Name, usize> = order.iter().enumerate().map(|(i, n)| (*n, i)).collect();
    // Each service's family is told by the first of it in the order.
    let mut family: Vec<usize> = (0..order.len()).collect();
    for (i, name) in order.iter().enumerate() {
        for need in needs.get(name).into_iter().flatten() {
            let (a, b) = (root(&mut family, i), place.get(need).map(|j| root(&mut family, *j)));
            if let Some(b) = b
                && let Some(later) = family.get_mut(a.max(b))
            {
                *later = a.min(b);
            }
        }
    }
    let mut keyed: BTreeMap<(usize, usize), &Name> = BTreeMap::new();
    for (i, name) in order.iter().enumerate() {
        keyed.insert((root(&mut family, i), i), name);
    }
    keyed.into_values().enumerate().map(|(rank, name)| (name.clone(), rank)).collect()
}

fn root(family: &mut [usize], mut at: usize) -> usize {
    while let Some(&up) = family.get(at)
        && up != at
    {
        let above = family.get(up).copied().unwrap_or(up);
        if let Some(entry) = family.get_mut(at) {
            *entry = above;
        }
        at = above;
    }
    at
}

#[cfg(test)]
mod tests;
