//! `cargo xtask demo`, `test`, `torture`, `soak`, `install`, `deb`, `man`, `bench`, `faults-table` and `servers-table`: each does all
//! the set-up that a fresh machine needs.

mod bench;
mod build;
mod deb;
mod demo;
mod faults_table;
mod install;
mod man;
mod nushell;
mod servers;
mod servers_table;
mod soak;
mod step;
mod tally;
mod test;
mod torture;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask demo [--record FILE] [--built]
                                   the whole story with a real server; --record puts its first half between
                                   FILE's markers; --built takes the programs as they are
cargo xtask test [NAME...]         all tests; with names, only the scenarios and faults whose names
                                   hold one
cargo xtask torture [--kills N] [--seed S]
                                   kills the daemon 2,000 times at random moments, and looks what is left
cargo xtask soak [--minutes N] [--seed S]
                                   ten minutes of churn, and what the daemon holds before and after
cargo xtask install [--prefix DIR]  shimd, the plugin and lib.nu, for the Nushell on PATH
cargo xtask uninstall [--prefix DIR]
cargo xtask deb [--from DIR] [--output FILE]
                                   a Debian package
cargo xtask man [DIR]              the man pages, into target/man
cargo xtask faults-table           writes docs/faults.md anew, from the fault scenarios
cargo xtask servers-table          writes the table of real servers in docs/healing.md, from their records
cargo xtask bench [NAME...]        the figures beside their floors, in release; with names, only those: events,
                                   verdict, heal, restart, gap, many, audit, truth, idle, list, burst, memory, load,
                                   recovery, intents, start";

fn main() -> ExitCode {
    if let Err(fault) = scenarios::end_worlds_on_interrupt() {
        eprintln!("xtask: {fault}");
        return ExitCode::FAILURE;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((command, rest)) if command == "demo" => demo::demo(rest),
        Some((command, rest)) if command == "test" => test::test(rest),
        Some((command, rest)) if command == "bench" => bench::bench(rest),
        Some((command, rest)) if command == "torture" => torture::torture(rest),
        Some((command, rest)) if command == "soak" => soak::soak(rest),
        Some((command, rest)) if command == "install" => install::install(rest),
        Some((command, rest)) if command == "uninstall" => install::uninstall(rest),
        Some((command, rest)) if command == "deb" => deb::deb(rest),
        Some((command, rest)) if command == "man" => man::man(rest),
        Some((command, rest)) if command == "faults-table" => faults_table::faults_table(rest),
        Some((command, rest)) if command == "servers-table" => servers_table::servers_table(rest),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(code) => code,
        Err(fault) => {
            eprintln!("xtask: {fault}");
            ExitCode::FAILURE
        }
    }
}
