//! A dump misses live sockets while others come and go: audits beside a crowd that never rests stay right.
//!
//! The kernel keeps path sockets in 256 lists by the low bits of their inode number (`unix_bsd_hash`), and a dump
//! that is handed over in several buffers goes on by counting within a list. So the test fills one list with more
//! than a buffer holds, of which every fifth socket is audited, and lets the others come and go in batches. On
//! a file system that gives inode numbers otherwise the crowd is spread, and the test is only less sharp.

#![allow(clippy::unwrap_used)] // these are tests, if not by attribute

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::*;
use socket_audit::{Auditor, Diag, Expect, Verdict};

const CROWD: usize = 400;
const LISTS: u64 = 256;
const ROUNDS: u64 = 2000;

/// Listeners of one list: fills the folder with files, and puts a socket where one of the right number was, which
/// ext4 gives to the next file that is made.
fn crowd(folder: &Path) -> Vec<(UnixListener, PathBuf)> {
    let files: Vec<_> =
        (0..CROWD as u64 * LISTS).map(|number| folder.join(format!("file-{number}"))).collect();
    let mut crowd = Vec::new();
    for file in &files {
        let number = fs::File::create(file).unwrap().metadata().unwrap().ino();
        if number.is_multiple_of(LISTS) {
            fs::remove_file(file).unwrap();
            let path = folder.join(format!("{}-{}", crowd.len(), "x".repeat(40)));
            crowd.push((UnixListener::bind(&path).unwrap(), path));
        }
    }
    for file in files {
        let _ = fs::remove_file(file);
    }
    crowd
}

/// Lets the newest, which the kernel lists first, go in batches and come again: what is listed after them moves up.
fn churn(mut crowd: Vec<(UnixListener, PathBuf)>, stop: &AtomicBool, count: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        let batch = crowd.split_off(crowd.len().saturating_sub(40));
        let paths: Vec<_> = batch.into_iter().map(|(_, path)| path).collect();
        for path in paths {
            fs::remove_file(&path).unwrap();
            crowd.push((UnixListener::bind(&path).unwrap(), path));
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Stops the thread also when the test panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn two_thousand_audits_beside_a_churn_never_err() {
    let (folder, beside) = (Folder::new(), Folder::new());
    let (mut audited, mut crowd) = (Vec::new(), Vec::new());
    for (number, one) in self::crowd(beside.path()).into_iter().enumerate() {
        if number % 5 == 0 { audited.push(one) } else { crowd.push(one) }
    }
    let known: Vec<_> = audited.iter().map(|(_, path)| trusted(path)).collect();
    let lost = known.last().unwrap().clone();
    fs::remove_file(&lost.path).unwrap();
    let live = known.split_last().unwrap().1;
    stale(&folder.join("stale.sock"));
    let others = [
        (Expect::path(&lost.path), Verdict::Dangling),
        (Expect::path(folder.join("stale.sock")), Verdict::Stale),
        (Expect::path(folder.join("absent.sock")), Verdict::Absent),
    ];
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        let (stop, count) = (&stop, &count);
        scope.spawn(move || churn(crowd, stop, count));
        let (mut auditor, mut diag) = (Auditor::new().unwrap(), Diag::open().unwrap());
        let mut missed = 0;
        for round in 0..ROUNDS {
            let dump = diag.dump().unwrap();
            missed +=
                known.iter().filter(|known| !dump.iter().any(|one| Some(one.id()) == known.known)).count();
            let expect = &live[round as usize % live.len()];
            let mut asked: Vec<_> = live.iter().map(|expect| (expect.clone(), Verdict::Ok)).collect();
            asked.push((lost.clone(), Verdict::Dangling));
            if round.is_multiple_of(40) {
                asked.extend(others.clone()); // these take a walk over /proc
                asked.extend(live.iter().map(|expect| (Expect::path(&expect.path), Verdict::Ok)));
            }
            let questions: Vec<_> = asked.iter().map(|(expect, _)| expect.clone()).collect();
            for (found, (_, wanted)) in auditor.audit(&questions).iter().zip(asked) {
                assert_eq!(found.verdict, wanted, "round {round}: {found:?}");
            }
            assert_eq!(auditor.confirm(expect).verdict, Verdict::Ok, "round {round}");
            assert_eq!(auditor.confirm(&lost).verdict, Verdict::Dangling, "round {round}");
        }
        let came = count.load(Ordering::Relaxed);
        eprintln!("{ROUNDS} dumps missed {missed} live sockets while {came} others came");
    });
}
