//! What an audit costs, beside its floor: one dump and one look at each path, measured in the same run.
//!
//! `cargo run --release -p socket-audit --example cost -- 1000 10000`. Takes the median of 21 runs.

use std::error::Error;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket_audit::{Auditor, Diag, Expect, Mounts, Owner, Verdict};

fn median(mut once: impl FnMut() -> Result<(), Box<dyn Error>>) -> Result<Duration, Box<dyn Error>> {
    let mut runs = Vec::new();
    for _ in 0..21 {
        let start = Instant::now();
        once()?;
        runs.push(start.elapsed());
    }
    runs.sort_unstable();
    Ok(runs.get(runs.len() / 2).copied().unwrap_or_default())
}

/// All sockets in one folder, or each in its own.
fn measure(count: usize, apart: bool) -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("socket-audit-cost-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let paths: Vec<_> = (0..count)
        .map(|number| match apart {
            true => folder.join(number.to_string()).join("x.sock"),
            false => folder.join(format!("{number}.sock")),
        })
        .collect();
    paths.iter().filter_map(|path| path.parent()).try_for_each(std::fs::create_dir_all)?;
    let held = paths.iter().map(UnixListener::bind).collect::<Result<Vec<_>, _>>()?;
    let (mut auditor, mut diag, mut mounts) = (Auditor::new()?, Diag::open()?, Mounts::new());
    let bare: Vec<_> = paths.iter().map(Expect::path).collect();
    let known = auditor.audit(&bare).into_iter().map(|found| found.listener.map(|listener| listener.id()));
    let trusted: Vec<_> = known
        .zip(&bare)
        .map(|(known, bare)| Expect { known, owner: Owner::Trusted, ..bare.clone() })
        .collect();
    let ok = |auditor: &mut Auditor, expects: &[Expect]| {
        let found = auditor.audit(expects);
        if found.iter().all(|found| found.verdict == Verdict::Ok) {
            Ok(())
        } else {
            Err("not all are ok".into())
        }
    };
    let dump = median(|| diag.dump().map(drop).map_err(Into::into))?;
    let looks = median(|| Ok(paths.iter().try_for_each(|path| mounts.look(path).map(drop))?))?;
    let floor = median(|| {
        let listed = diag.dump()?;
        paths.iter().try_for_each(|path| std::fs::symlink_metadata(path).map(drop))?;
        drop(listed);
        Ok(())
    })?;
    let audit = median(|| ok(&mut auditor, &trusted))?;
    let anyone = median(|| ok(&mut auditor, &bare))?;
    let one = trusted.first().ok_or("no sockets")?;
    let confirm =
        median(|| if auditor.confirm(one).verdict == Verdict::Ok { Ok(()) } else { Err("lost".into()) })?;
    let ratio = audit.as_secs_f64() / floor.as_secs_f64();
    println!(
        "{count} sockets in {}: floor, a dump and an lstat of each: {floor:?}; audit: {audit:?}, {ratio:.2} of it",
        if apart { "a folder each" } else { "one folder" }
    );
    println!(
        "  a dump {dump:?}, all looks {looks:?}, an audit with holders {anyone:?}, confirm one {confirm:?}"
    );
    drop(held);
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    for count in std::env::args().skip(1) {
        let count = count.parse()?;
        measure(count, false)?;
        measure(count, true)?;
    }
    Ok(())
}
