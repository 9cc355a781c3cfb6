//! Services that depend on each other, and what their restarts have left in their journal and in the daemon's history.

use crate::{Json, Result, World, ensure, specs};
use serde_json::{Value, json};
use std::fs;

/// Registers and starts services of the fixture server, each with the names that it depends on and options of its own;
/// all write the journal `journal`. Gives the pids, in the same order.
pub fn up(world: &World, services: &[(&str, &[&str], &[&str])]) -> Result<Vec<i32>> {
    let journal = world.file("journal").display().to_string();
    for (name, on, options) in services {
        let mut all = vec!["--journal", &journal, "--tag", name];
        all.extend(*options);
        world.register(&specs::with(specs::unixd(world, name, &all), json!({"depends_on": on})))?;
    }
    let names: Vec<&str> = services.iter().map(|(name, ..)| *name).collect();
    let rows = world.rpc("service.start", json!({"names": names}))?;
    names
        .iter()
        .map(|name| {
            let row = rows.row("name", name)?;
            ensure!(row.text("status")? == "running", "it did not come up: {row}");
            row.pid("pid")
        })
        .collect()
}

/// What happened since the journal and the history were this long.
pub struct Story {
    /// `start NAME`, `ready NAME`, `stop NAME`, as the services themselves wrote it.
    pub journal: Vec<String>,
    /// `NAME STATUS`, as the daemon's `state` events say it.
    pub states: Vec<String>,
}

/// How long journal and history are.
pub fn mark(world: &World) -> Result<(usize, u64)> {
    let last = events(world, 0)?.last().map(|row| row.int("id")).transpose()?.unwrap_or_default();
    Ok((journal(world).len(), last.unsigned_abs()))
}

/// What has happened since.
pub fn since(world: &World, mark: (usize, u64)) -> Result<Story> {
    let states = events(world, mark.1)?;
    let state = |row: &Value| -> Result<String> {
        Ok(format!("{} {}", row.text("service")?, row.field("detail").text("status")?))
    };
    Ok(Story {
        journal: journal(world).split_off(mark.0),
        states: states.iter().map(state).collect::<Result<_>>()?,
    })
}

fn events(world: &World, after: u64) -> Result<Vec<Value>> {
    Ok(world.rpc("event.list", json!({"kinds": ["state"], "after": after}))?.rows()?.clone())
}

fn journal(world: &World) -> Vec<String> {
    let text = fs::read_to_string(world.file("journal")).unwrap_or_default();
    text.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

impl Story {
    /// Holds that both were written to the journal, once each, `first` before `then`.
    pub fn wrote(&self, first: &str, then: &str) -> Result {
        before(&self.journal, first, then)
    }

    /// Holds that both states were entered, `first` before `then`.
    pub fn was(&self, first: &str, then: &str) -> Result {
        before(&self.states, first, then)
    }

    /// The most services that were between these two words of the journal (`start`, `ready`) at a time.
    pub fn at_once(&self, from: &str, to: &str) -> usize {
        let (mut now, mut most) = (0_usize, 0);
        for line in &self.journal {
            match line.split_once(' ') {
                Some((word, _)) if word == from => now += 1,
                Some((word, _)) if word == to => now = now.saturating_sub(1),
                _ => {}
            }
            most = most.max(now);
        }
        most
    }
}

fn before(lines: &[String], first: &str, then: &str) -> Result {
    for line in [first, then] {
        let count = lines.iter().filter(|l| *l == line).count();
        ensure!(count == 1, "`{line}` is there {count} times: {lines:?}");
    }
    let at = |line: &str| lines.iter().position(|l| l == line);
    ensure!(at(first) < at(then), "`{first}` comes before `{then}`: {lines:?}");
    Ok(())
}
