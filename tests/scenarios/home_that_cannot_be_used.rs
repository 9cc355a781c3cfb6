//! A home that a daemon cannot begin in: on a read-only file system, new or used; with a store that a newer shimd wrote. It
//! says which file and what to do, ends at once, and changes nothing.

use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};
use scenarios::fault::Context;
use scenarios::{Need, Result, World, ensure, scenario, specs};
use std::fs;
use std::path::{Path, PathBuf};

pub fn trials() -> Vec<Trial> {
    let root = [Need::Root, Need::Daemon, Need::Nushell];
    vec![
        scenario("home_that_cannot_be_used::read_only_and_new", &root, |world| read_only(world, false)),
        scenario("home_that_cannot_be_used::read_only_and_used", &root, |world| read_only(world, true)),
        scenario("home_that_cannot_be_used::newer_store", &[Need::Daemon, Need::Nushell], newer),
    ]
}

/// What the daemon says, and Nushell shows, when it cannot begin: both have the `words`, the daemon also the `remedy`.
fn refused(world: &World, words: &[&str], remedy: &str) -> Result {
    let output = world.command(world.bin("shimd")).arg("run").output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    ensure!(said.lines().count() == 1, "one line: {said}");
    let failure = world.nu_refuses("proc shim start", "proc::no_daemon")?;
    ensure!(said.contains(remedy), "{remedy:?} is not in: {said}");
    for word in words {
        ensure!(said.contains(word), "{word:?} is not in: {said}");
        ensure!(failure.mentions(word), "{word:?} is not in: {failure:?}");
    }
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut names: Vec<PathBuf> = fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    names.sort();
    Ok(names)
}

fn read_only(world: &World, used: bool) -> Result {
    let home = world.home();
    fs::create_dir(&home)?;
    mount(Some("tmpfs"), &home, Some("tmpfs"), MsFlags::empty(), Some("size=8m,mode=700"))
        .context("tmpfs")?;
    if used {
        world.start_daemon()?;
        world.register(&specs::unixd(world, "web", &[]))?;
        world.stop_daemon(true)?;
    }
    let before = names(&home)?;
    let again = |flags| mount(None::<&str>, &home, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>);
    again(MsFlags::MS_RDONLY).context("cannot remount")?;
    let words = [&*home.to_string_lossy(), "Read-only file system"];
    refused(world, &words, "remount the file system for writing")?;
    again(MsFlags::empty()).context("cannot remount")?;
    ensure!(names(&home)? == before, "{:?}, and was {before:?}", names(&home)?);
    world.start_daemon()?;
    ensure!(!used || world.service("web").is_ok(), "what was registered is");
    Ok(())
}

fn newer(world: &World) -> Result {
    world.start_daemon()?;
    world.register(&specs::unixd(world, "web", &[]))?;
    world.stop_daemon(true)?;
    let database = world.home().join("state.db");
    let version = |to: &str| -> Result {
        let db = rusqlite::Connection::open(&database)?;
        db.execute("UPDATE meta SET value = ?1 WHERE key = 'schema'", [to])?;
        Ok(())
    };
    version("99")?;
    let words = [&*database.to_string_lossy(), "schema 99", "a newer shimd wrote it"];
    refused(world, &words, "point SHIMD_HOME elsewhere")?;
    version("4")?;
    world.start_daemon()?;
    ensure!(world.service("web").is_ok(), "what was registered is");
    Ok(())
}
