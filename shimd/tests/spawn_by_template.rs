//! All that `spawn` tests, with a template to make the trampolines; and what becomes of starts when it goes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

#[path = "spawn.rs"]
mod spawn;

use nix::sys::signal::Signal;
use shimd::sys::spawn::begin_with;
use shimd::sys::template::Template;
use spawn::common::{Folder, Service, plan, shimd, template, until};

#[tokio::test]
async fn the_tests_of_this_file_have_a_template() {
    let folder = Folder::new();
    let (out, err) = (folder.log("out"), folder.log("err"));
    let mut pending = begin_with(shimd(), template(), &plan(&["true"]), &out, &err).unwrap();
    assert!(pending.by_template());
    let _service = Service(pending.ready().await.unwrap());
    pending.go().await.unwrap();
}

/// The children of this process whose command line is a template's.
fn templates() -> Vec<i32> {
    let own = std::process::id().to_string();
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>());
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        fields.is_some_and(|f| f.first() != Some(&"Z") && f.get(1) == Some(&own.as_str()))
            && line == b"shimd\0__template\0"
    })
    .collect()
}

/// Starts another template, and gives it with its pid. One at a time: it is told by being new.
fn another() -> (Template, i32) {
    template(); // the tests' own is there before and after
    let before = templates();
    let own = Template::start_with(shimd()).unwrap();
    let pid = until("a template", || templates().into_iter().find(|pid| !before.contains(pid)));
    (own, pid)
}

#[tokio::test]
async fn a_template_ends_with_its_daemon_and_is_missed_by_nobody_where_it_is_killed() {
    let (own, pid) = another();
    drop(own);
    until("its end", || (!templates().contains(&pid)).then_some(()));

    let (own, pid) = another();
    let kill = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    let folder = Folder::new();
    let (out, err) = (folder.log("out"), folder.log("err"));
    kill(Signal::SIGSTOP);
    let mut left_to_it = begin_with(shimd(), &own, &plan(&["true"]), &out, &err).unwrap();
    assert!(left_to_it.by_template());
    kill(Signal::SIGKILL);
    assert!(left_to_it.ready().await.unwrap_err().is_silent(), "nobody says anything, and nothing hangs");
    until("its end", || (!templates().contains(&pid)).then_some(()));
    let mut pending = begin_with(shimd(), &own, &plan(&["true"]), &out, &err).unwrap();
    assert!(!pending.by_template(), "a start goes without one");
    let _service = Service(pending.ready().await.unwrap());
    pending.go().await.unwrap();
}
