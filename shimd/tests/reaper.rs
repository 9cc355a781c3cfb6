//! The reaper, alone in its process: it takes every child there is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod common;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;

use common::{DEADLINE, Folder, begin, plan, script};
use shimd::sys::pidfd::PidFd;
use shimd::sys::reaper::{self, Exit};
use tokio::sync::mpsc::Receiver;

async fn next(exits: &mut Receiver<Exit>) -> Exit {
    tokio::time::timeout(DEADLINE, exits.recv()).await.expect("an exit in time").expect("a reaper")
}

async fn until_exit(exits: &mut Receiver<Exit>, pid: i32) -> Exit {
    loop {
        let exit = next(exits).await;
        if exit.pid == pid {
            return exit;
        }
    }
}

/// One test, since there can be one reaper in a process.
#[tokio::test(flavor = "multi_thread")]
async fn every_exit_is_seen() {
    let mut exits = reaper::start().unwrap();
    let folder = Folder::new();

    // Two hundred that exit as fast as they can, so that SIGCHLDs coalesce.
    let mut expected = BTreeMap::new();
    for i in 0..200 {
        let code = (i % 100).to_string();
        let mut pending = begin(&folder, &plan(&["sh", "-c", "exit $0", &code])).unwrap();
        let identity = pending.ready().await.unwrap();
        expected.insert((identity.pid, Some(identity.start_ticks)), i % 100);
        pending.go().await.unwrap();
    }
    while !expected.is_empty() {
        let exit = next(&mut exits).await;
        if let Some(code) = expected.remove(&(exit.pid, exit.start_ticks)) {
            assert_eq!(exit.status.code(), Some(code));
        }
    }

    // A death by a real-time signal, which not every wrapper of waitid knows.
    let mut pending = begin(&folder, &plan(&["sleep", "1000"])).unwrap();
    let identity = pending.ready().await.unwrap();
    pending.go().await.unwrap();
    let held = PidFd::open(identity.pid).unwrap();
    held.signal(libc::SIGRTMIN() + 1).unwrap();
    let exit = until_exit(&mut exits, identity.pid).await;
    assert_eq!(exit.status.signal(), Some(libc::SIGRTMIN() + 1));

    // It is reaped by now, and yet its pidfd tells how it ended, where the kernel can.
    assert!(!held.is_alive());
    let told = held.exit_status(std::time::Duration::from_secs(1)).await.unwrap();
    assert!(told.is_none_or(|status| status == exit.status), "{told:?}");

    // An orphan becomes the daemon's child and is reaped as well.
    let mut pending = begin(&folder, &script("m", "(sh -c 'echo $$; exec sleep 0.2' &)")).unwrap();
    pending.ready().await.unwrap();
    pending.go().await.unwrap();
    let orphan = folder.lines("out", 1)[0].parse().unwrap();
    assert!(until_exit(&mut exits, orphan).await.status.success());
    assert!(PidFd::open(orphan).unwrap_err().is_gone());
}
