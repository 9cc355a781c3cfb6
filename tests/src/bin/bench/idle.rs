//! What an idle daemon costs: processor time of all its threads, as `/proc/PID/stat` counts it in utime and stime, here
//! by the process's own clock (clock_getcpuclockid(3)), which has nanoseconds for ticks; and how often its threads
//! woke, by their voluntary context switches. `BENCH_IDLE_SECONDS` shortens the look, for trying.
//!
//! The floor is what the period asks for and no more, done from here: every 5 s one dump and an lstat each.

use crate::dump::Dump;
use crate::fleet;
use crate::in_world;
use crate::table::{Aim, Amount, Line, Section};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use scenarios::fault::Context;
use scenarios::{Result, World};
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SOCKETS: usize = 1_000;
/// So many services are started in one request: a busy machine needs too long for all.
const AT_ONCE: usize = 100;
const SPAN: Duration = Duration::from_secs(60);
/// The daemon's own period.
const PERIOD: Duration = Duration::from_secs(5);
/// More than a period: what follows from the start is over by then.
const SETTLED: Duration = Duration::from_secs(7);
/// One thousandth of one processor.
const MOST: f64 = 0.001;

pub fn measure() -> Result<Vec<Section>> {
    let span = match std::env::var("BENCH_IDLE_SECONDS") {
        Ok(seconds) => Duration::from_secs(seconds.parse()?),
        Err(_) => SPAN,
    };
    let each = in_world("idle", |world| {
        let daemon = world.start_daemon()?;
        let names = fleet::names(0..SOCKETS);
        fleet::register(world, &names)?;
        for some in names.chunks(AT_ONCE) {
            fleet::start(world, some)?;
        }
        let paths = names.iter().map(|name| world.socket(name, "rpc.sock")).collect();
        figure(daemon, paths, span, "one a service")
    })?;
    let wide = in_world("idle", |world: &World| {
        let daemon = world.start_daemon()?;
        let paths = fleet::up_wide(world, SOCKETS, "report")?;
        figure(daemon, paths, span, &format!("{} a service", fleet::WIDE))
    })?;
    Ok(vec![each, wide])
}

fn figure(daemon: i32, paths: Vec<PathBuf>, span: Duration, how: &str) -> Result<Section> {
    std::thread::sleep(SETTLED);
    let clock = clock_getcpuclockid(Pid::from_raw(daemon))?;
    let mut floor = Period::new(paths)?;
    let (start, used, woken) = (Instant::now(), read(clock)?, switches(daemon)?);
    while let Some(left) = span.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        floor.run()?;
        std::thread::sleep(left.min(PERIOD));
    }
    let (took, used) = (start.elapsed(), read(clock)? - used);
    let before = |thread: &String| woken.get(thread).copied().unwrap_or(0);
    let woken: u64 = switches(daemon)?.iter().map(|(thread, count)| count - before(thread)).sum();
    let share = |used: Duration| Amount::Share(used.as_secs_f64() / took.as_secs_f64());
    let seconds = took.as_secs();
    Ok(Section {
        title: format!("an idle daemon with {SOCKETS} sockets, {how}, for {seconds} s"),
        floor: Some(Line::found("one dump and an lstat each, every 5 s", 1, share(floor.used))),
        lines: vec![
            Line::found("of one processor", 1, share(used)).aim(Aim::Most(Amount::Share(MOST))),
            Line::found("voluntary context switches", 1, Amount::Count(woken)),
        ],
    })
}

/// The least that a period can be, and what it took of this thread's time.
struct Period {
    paths: Vec<PathBuf>,
    dump: Dump,
    used: Duration,
}

impl Period {
    fn new(paths: Vec<PathBuf>) -> Result<Period> {
        Ok(Period { paths, dump: Dump::open()?, used: Duration::ZERO })
    }

    fn run(&mut self) -> Result {
        let start = read(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
        for path in &self.paths {
            fs::symlink_metadata(path)?;
        }
        self.dump.take()?;
        self.used += read(ClockId::CLOCK_THREAD_CPUTIME_ID)? - start;
        Ok(())
    }
}

fn read(clock: ClockId) -> Result<Duration> {
    Ok(clock_gettime(clock)?.into())
}

/// Of each thread that lives. One that has ended has taken its count along.
fn switches(pid: i32) -> Result<HashMap<String, u64>> {
    let mut all = HashMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.path();
        let status = fs::read_to_string(thread.join("status"))?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let count = count.context("no context switches in status")?.trim().parse()?;
        all.insert(thread.display().to_string(), count);
    }
    Ok(all)
}
