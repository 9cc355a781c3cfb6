//! The figures as a table for people, with what there is to know of the machine.

use crate::samples::Samples;
use std::fmt;
use std::fs;
use std::mem::discriminant;
use std::time::Duration;

/// An amount that has a unit.
#[derive(Debug, Clone, Copy)]
pub enum Amount {
    Time(Duration),
    Bytes(u64),
    /// So many times one processor's whole time.
    Share(f64),
    Count(u64),
}

impl Amount {
    fn number(self) -> f64 {
        match self {
            Amount::Time(time) => time.as_secs_f64(),
            Amount::Bytes(bytes) => bytes as f64,
            Amount::Share(share) => share,
            Amount::Count(count) => count as f64,
        }
    }

    /// How many times `other`, where the two can be compared.
    fn times(self, other: Amount) -> Option<f64> {
        (discriminant(&self) == discriminant(&other)).then(|| self.number() / other.number())
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Amount::Time(time) if time.as_millis() == 0 => format!("{:.1} µs", time.as_secs_f64() * 1e6),
            Amount::Time(time) if time.as_secs() == 0 => format!("{:.2} ms", time.as_secs_f64() * 1e3),
            Amount::Time(time) => format!("{:.2} s", time.as_secs_f64()),
            Amount::Bytes(bytes) => format!("{:.2} MiB", *bytes as f64 / f64::from(1 << 20)),
            Amount::Share(share) => format!("{:.3} %", share * 100.0),
            Amount::Count(count) => count.to_string(),
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
    /// The 99th percentile so long.
    P99(Duration),
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Aim::Floors(times) => write!(f, "{times}×"),
            Aim::Most(Amount::Time(time)) => write!(f, "{time:?}"),
            Aim::Most(Amount::Bytes(bytes)) => write!(f, "{} MiB", bytes >> 20),
            Aim::Most(Amount::Share(share)) => write!(f, "{} %", share * 100.0),
            Aim::Most(Amount::Count(count)) => write!(f, "{count}"),
            Aim::P99(time) => write!(f, "p99 {time:?}"),
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
    aims: Vec<Aim>,
}

impl Line {
    /// Something that was timed.
    pub fn timed(what: impl Into<String>, samples: &Samples) -> Line {
        Line {
            what: what.into(),
            runs: samples.runs(),
            median: Amount::Time(samples.median()),
            p99: samples.p99().map(Amount::Time),
            aims: Vec::new(),
        }
    }

    /// Something that was weighed, once.
    pub fn weighed(what: impl Into<String>, bytes: u64) -> Line {
        Line::found(what, 1, Amount::Bytes(bytes))
    }

    /// What came of all runs together.
    pub fn found(what: impl Into<String>, runs: usize, amount: Amount) -> Line {
        Line { what: what.into(), runs, median: amount, p99: None, aims: Vec::new() }
    }

    /// With what it should be at most; of several aims all are to be met.
    pub fn aim(mut self, aim: Aim) -> Line {
        self.aims.push(aim);
        self
    }

    /// Whether its aims are met; `None` if it has none.
    fn met(&self, ratio: Option<f64>) -> Option<bool> {
        let met = |aim: &Aim| match *aim {
            Aim::Floors(times) => ratio.is_some_and(|ratio| ratio <= times),
            Aim::Most(most) => self.median.number() <= most.number(),
            Aim::P99(most) => self.p99.is_some_and(|p99| p99.number() <= most.as_secs_f64()),
        };
        (!self.aims.is_empty()).then(|| self.aims.iter().all(met))
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
    println!("{:<62} {:>7} {:>10} {:>10} {:>8}  {:<12}", "", "runs", "median", "p99", "× floor", "aim");
    for Section { title, floor, lines } in sections {
        println!("{title}");
        if let Some(floor) = floor {
            print_line(floor, "floor".to_owned(), "");
        }
        for line in lines {
            let ratio = floor.as_ref().and_then(|floor| line.median.times(floor.median));
            let word = match line.met(ratio) {
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
    let aims: Vec<String> = line.aims.iter().map(Aim::to_string).collect();
    let aim = aims.join(", ");
    let text = format!(
        "  {:<60} {:>7} {:>10} {p99:>10} {ratio:>8}  {aim:<12} {word}",
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
