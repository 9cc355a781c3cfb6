//! A million verdicts beside listeners that come and go as fast as they can: none may be false.
//!
//! Three ask about the same sockets in turn: the daemon's `socket.check`; an auditor that knows nothing, which needs
//! more rounds for what the kernel's dump leaves out; and one that trusts the listeners it saw in order, as the daemon's
//! period does. A socket that is in order and is called anything but `ok` is a false alarm; one whose dentry is gone
//! and that is not called `dangling` is a false all-clear or a false reason. Each false verdict is printed in full.

use crate::churn::Churn;
use crate::client::Control;
use crate::fleet::{self, WIDE};
use crate::in_world;
use crate::table::{Aim, Amount, Line, Section};
use scenarios::{Json, Result, ensure};
use serde_json::json;
use socket_audit::{Auditor, Expect, Listener, Owner, Verdict};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

const SOCKETS: usize = 550;
/// Every so many sockets lose their dentry: 50 of them.
const LOST_EVERY: usize = 11;
/// Verdicts on sockets that are in order.
const VERDICTS: usize = 1_000_000;
/// In one turn the daemon and the auditor that knows nothing are asked once, the one that trusts so often.
const TRUSTED: usize = 3;
/// More than can be had: as fast as the child can.
const RATE: u64 = 1_000_000;

pub fn measure() -> Result<Vec<Section>> {
    in_world("truth", |world| {
        world.start_daemon()?;
        let paths = fleet::up_wide(world, SOCKETS, "report")?;
        let known = trusted(&paths)?;
        let lost: HashSet<PathBuf> = paths.iter().step_by(LOST_EVERY).cloned().collect();
        for path in &lost {
            fs::remove_file(path)?;
        }
        let names = fleet::names(0..SOCKETS.div_ceil(WIDE));
        let mut control = Control::open(world)?;
        let mut auditor = Auditor::new()?;
        let unknown: Vec<Expect> = paths.iter().cloned().map(Expect::path).collect();
        let [mut daemon, mut ignorant, mut trusting] =
            ["socket.check of the daemon", "an auditor that knows nothing", "one that trusts what it knows"]
                .map(|who| Tally::new(who, &lost));
        let mut churn = Churn::start(world, RATE)?;
        let mark = churn.mark()?;
        while daemon.fine + ignorant.fine + trusting.fine < VERDICTS {
            let rows = control.call("socket.check", json!({"names": names}))?;
            for row in rows.rows()? {
                let reason = row.field("reason").as_str().unwrap_or_default();
                daemon.count(Path::new(row.text("path")?), row.text("verdict")?, reason);
            }
            let mut ask = |tally: &mut Tally, expects: &[Expect]| {
                for finding in auditor.audit(expects) {
                    tally.count(&finding.path, finding.verdict.as_str(), &finding.reason);
                }
            };
            ask(&mut ignorant, &unknown);
            (0..TRUSTED).for_each(|_| ask(&mut trusting, &known));
        }
        let beside = churn.since(&mark)?;
        let lines = [daemon, ignorant, trusting].iter().flat_map(Tally::lines).collect();
        Ok(vec![Section {
            title: format!("false verdicts (runs: all of them), beside {beside}"),
            floor: None,
            lines,
        }])
    })
}

/// As the daemon does: seen to be in order once, and from then on trusted.
fn trusted(paths: &[PathBuf]) -> Result<Vec<Expect>> {
    let mut expects: Vec<Expect> = paths.iter().cloned().map(Expect::path).collect();
    let seen = Auditor::new()?.audit(&expects);
    for (expect, finding) in expects.iter_mut().zip(&seen) {
        ensure!(finding.verdict == Verdict::Ok, "{}: {}", finding.path.display(), finding.reason);
        expect.known = finding.listener.as_ref().map(Listener::id);
        expect.owner = Owner::Trusted;
    }
    Ok(expects)
}

/// What one of the three has said.
struct Tally<'a> {
    who: &'static str,
    lost: &'a HashSet<PathBuf>,
    /// On sockets that are in order, and on those that lost their dentry; each with the false ones among them.
    fine: usize,
    fine_false: u64,
    gone: usize,
    gone_false: u64,
}

impl Tally<'_> {
    fn new<'a>(who: &'static str, lost: &'a HashSet<PathBuf>) -> Tally<'a> {
        Tally { who, lost, fine: 0, fine_false: 0, gone: 0, gone_false: 0 }
    }

    fn count(&mut self, path: &Path, verdict: &str, reason: &str) {
        let (all, wrong, truth) = if self.lost.contains(path) {
            (&mut self.gone, &mut self.gone_false, Verdict::Dangling)
        } else {
            (&mut self.fine, &mut self.fine_false, Verdict::Ok)
        };
        *all += 1;
        if verdict != truth.as_str() {
            *wrong += 1;
            eprintln!("bench: {}: {} is {truth} and called {verdict}: {reason}", self.who, path.display());
        }
    }

    fn lines(&self) -> [Line; 2] {
        let line = |what: &str, runs, wrong| {
            Line::found(format!("{}: {what}", self.who), runs, Amount::Count(wrong))
                .aim(Aim::Most(Amount::Count(0)))
        };
        [line("in order", self.fine, self.fine_false), line("dangling", self.gone, self.gone_false)]
    }
}
