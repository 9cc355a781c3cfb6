//! The figures as a table for people, with what there is to know of the machine.

use crate::samples::Samples;
use std::fmt;
use std::fs;
use std::time::Duration;

/// An amount that has a unit.
#[derive(Debug, Clone, Copy)]
pub enum Amount {
    Time(Duration),
    Bytes(u64),
}

impl Amount {
    fn number(self) -> f64 {
        match self {
            Amount::Time(time) => time.as_secs_f64(),
            Amount::Bytes(bytes) => bytes as f64,
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Amount::Time(time) if time.as_millis() == 0 => format!("{:.1} µs", time.as_secs_f64() * 1e6),
            Amount::Time(time) if time.as_secs() == 0 => format!("{:.2} ms", time.as_secs_f64() * 1e3),
            Amount::Time(time) => format!("{:.2} s", time.as_secs_f64()),
            Amount::Bytes(bytes) => format!("{:.2} MiB", *bytes as f64 / f64::from(1 << 20)),
        };
        f.pad(&text)
    }
}

/// What a figure should be at most.
#[derive(Debug, Clone, Copy)]
pub enum Aim {
    /// So many times the floor.
    Floors(f64),
    /// So much.
    Most(Amount),
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Aim::Floors(times) => write!(f, "{times}×"),
            Aim::Most(Amount::Time(time)) => write!(f, "{time:?}"),
            Aim::Most(Amount::Bytes(bytes)) => write!(f, "{} MiB", bytes >> 20),
        }
    }
}

/// One line.
#[derive(Debug)]
pub struct Line {
    what: String,
    runs: usize,
    median: Amount,
    p99: Option<Amount>,
    aim: Option<Aim>,
}

impl Line {
    /// Something that was timed.
    pub fn timed(what: impl Into<String>, samples: &Samples) -> Line {
        Line {
            what: what.into(),
            runs: samples.runs(),
            median: Amount::Time(samples.median()),
            p99: samples.p99().map(Amount::Time),
            aim: None,
        }
    }

    /// Something that was weighed, once.
    pub fn weighed(what: impl Into<String>, bytes: u64) -> Line {
        Line { what: what.into(), runs: 1, median: Amount::Bytes(bytes), p99: None, aim: None }
    }

    /// With what it should be at most.
    pub fn aim(self, aim: Aim) -> Line {
        Line { aim: Some(aim), ..self }
    }
}

/// A floor, if there is one, and what is measured against it.
#[derive(Debug)]
pub struct Section {
    pub title: String,
    pub floor: Option<Line>,
    pub lines: Vec<Line>,
}

/// Prints all, the machine first.
pub fn print(sections: &[Section]) {
    println!("{}\n", machine());
    println!("{:<62} {:>5} {:>10} {:>10} {:>8}  {:<6}", "", "runs", "median", "p99", "× floor", "aim");
    for Section { title, floor, lines } in sections {
        println!("{title}");
        if let Some(floor) = floor {
            print_line(floor, "floor".to_owned(), "");
        }
        for line in lines {
            let ratio = floor.as_ref().map(|floor| line.median.number() / floor.median.number());
            let met = line.aim.map(|aim| match aim {
                Aim::Floors(times) => ratio.is_some_and(|ratio| ratio <= times),
                Aim::Most(most) => line.median.number() <= most.number(),
            });
            let word = match met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            };
            print_line(line, ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")), word);
        }
    }
}

fn print_line(line: &Line, ratio: String, word: &str) {
    let p99 = line.p99.map_or_else(String::new, |p99| p99.to_string());
    let aim = line.aim.map_or_else(String::new, |aim| aim.to_string());
    let text = format!(
        "  {:<60} {:>5} {:>10} {p99:>10} {ratio:>8}  {aim:<6} {word}",
        line.what, line.runs, line.median
    );
    println!("{}", text.trim_end());
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let load = read("/proc/loadavg");
    format!(
        "{cores} cores ({}), Linux {}, load at the end {}",
        model.map_or("of an unknown model", |(_, model)| model),
        read("/proc/sys/kernel/osrelease").trim_end(),
        load.split(' ').next().unwrap_or_default(),
    )
}
