//! One audit of sockets that are all in order, each in a folder of its own as services have it, by the library itself.

use crate::dump::Dump;
use crate::in_world;
use crate::samples::Samples;
use crate::table::{Aim, Line, Section};
use scenarios::{Result, World, ensure};
use socket_audit::{Auditor, Expect, Listener, Owner, Verdict};
use std::fs;
use std::os::unix::net::UnixListener;

/// How many sockets, and how often they are audited.
const SIZES: [(usize, usize); 2] = [(1_000, 200), (10_000, 40)];

pub fn measure() -> Result<Vec<Section>> {
    in_world("audit", |world| {
        let mut listeners = Vec::new();
        let mut expects = Vec::new();
        SIZES.iter().map(|(size, runs)| figure(world, &mut listeners, &mut expects, *size, *runs)).collect()
    })
}

fn figure(
    world: &World,
    listeners: &mut Vec<UnixListener>,
    expects: &mut Vec<Expect>,
    size: usize,
    runs: usize,
) -> Result<Section> {
    let mut auditor = Auditor::new()?;
    while listeners.len() < size {
        let path = world.socket(&format!("service-{}", listeners.len()), "rpc.sock");
        fs::create_dir_all(path.parent().unwrap_or(world.folder()))?;
        listeners.push(UnixListener::bind(&path)?);
        expects.push(Expect::path(path));
    }
    // As the daemon does: seen to be in order once, and from then on trusted.
    let seen = auditor.audit(expects);
    for (expect, finding) in expects.iter_mut().zip(&seen) {
        ensure!(finding.verdict == Verdict::Ok, "{}: {}", finding.path.display(), finding.reason);
        expect.known = finding.listener.as_ref().map(Listener::id);
        expect.owner = Owner::Trusted;
    }
    let mut dump = Dump::open()?;
    let (mut floor, mut audit) = (Samples::default(), Samples::default());
    for _ in 0..runs {
        floor.time(|| -> Result {
            for expect in expects.iter() {
                fs::symlink_metadata(&expect.path)?;
            }
            dump.take().map(drop)
        })?;
        let found = audit.time(|| auditor.audit(expects));
        let ok = found.iter().filter(|finding| finding.verdict == Verdict::Ok).count();
        ensure!(ok == size, "{ok} of {size} sockets are ok");
    }
    Ok(Section {
        title: format!("one audit of {size} sockets"),
        floor: Some(Line::timed("one dump, read and not looked at, and an lstat each", &floor)),
        lines: vec![Line::timed("audit", &audit).aim(Aim::Floors(1.5))],
    })
}
