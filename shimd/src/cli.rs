//! The command line of `shimd`: what it takes, and what `--help` and the man pages say of it.

use clap::{CommandFactory, Parser, Subcommand};

use crate::check::CheckArgs;
use crate::wrap::args::WrapArgs;

/// Keeps the Unix sockets of services reachable
///
/// It cleans stale ones before a start, verifies after it, and audits for ever by the kernel's truth. A file that is lost
/// while its server listens on is linked back, without a restart.
#[derive(Debug, Parser)]
#[command(name = "shimd", version, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// `shimd COMMAND`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground
    ///
    /// One a home (SHIMD_HOME). SIGTERM ends it, its services live on; the next one finds them again. Exit status: 0, it
    /// was told to end; 1, it could not start; 3, another one has this home.
    #[command(after_help = RUN)]
    Run {
        /// Leave the caller's session and close its descriptors (what the Nushell plugin starts)
        #[arg(long)]
        detach: bool,
        /// Take the place of the shimd that runs in this home, of this version or another; no service is touched
        #[arg(long)]
        replace: bool,
    },
    /// Say whether clients can reach sockets; no daemon needed
    ///
    /// Nothing is connected to: what lies at the path is compared with what the kernel listens on. Exit status: 0, all
    /// are ok; 1, some are not; 2, wrong arguments, or the truth could not be had.
    #[command(after_help = CHECK)]
    Check(CheckArgs),
    /// Run one service beneath any supervisor, and keep its sockets reachable
    ///
    /// A prefix to the service's command line: cleans, spawns, verifies, says READY=1 once the sockets are ok, and puts a
    /// lost file back. Hands signals on and ends as the service does. Exit status: the service's; 2, wrong arguments;
    /// 125, wrap's own fault; 126 and 127, the program cannot be run, or found.
    #[command(after_help = WRAP)]
    Wrap(WrapArgs),
    /// Print the version
    #[command(after_help = "Example:\n  shimd version")]
    Version,
}

/// The whole command line, as clap has it.
pub fn command() -> clap::Command {
    Cli::command()
}

const EXAMPLES: &str = "Examples:
  shimd run                                   the daemon, in the foreground
  shimd run --replace                         the same, in the place of the one that runs
  shimd check /run/redis/redis.sock           is it served? 0: ok, 1: not ok, 2: cannot tell
  shimd wrap --socket /run/app.sock -- app    a prefix for any supervisor's command line";

const RUN: &str = "Examples:
  shimd run                                   state in SHIMD_HOME; services come up
  SHIMD_HOME=/srv/shim shimd run              another home, with services of its own
  SHIMD_LOG=debug shimd run                   says more on stderr
  shimd run --replace                         after an upgrade: services live on";

const CHECK: &str = "Examples:
  shimd check /run/redis/redis.sock           path, verdict, pid of the listener, reason
  shimd check --json /run/*.sock              the same for programs
  shimd check @app || echo 'nobody listens'   an abstract socket; by the exit status";

const WRAP: &str = "Examples:
  shimd wrap --socket /run/app.sock -- app --listen /run/app.sock
  shimd wrap --socket /run/app.sock -- app --listen '{socket}'
  shimd wrap --socket /run/a.sock --socket /run/b.sock -- app '{socket:a.sock}' '{socket:b.sock}'
  shimd wrap --notify-fd 3 --socket /run/app.sock -- app /run/app.sock     (s6)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    /// `shimd …` of a line, without what a shell reads before and after it.
    fn words(line: &str) -> Option<Vec<String>> {
        let line = line.get(line.find("shimd ")?..)?;
        let line = line.split("   ").next()?.split(" || ").next()?;
        Some(line.split_whitespace().map(|word| word.trim_matches('\'').to_owned()).collect())
    }

    #[test]
    fn every_command_has_examples_and_each_is_understood() {
        let whole = command();
        let of_each = whole.get_subcommands().map(|command| (command.get_name(), command.get_after_help()));
        for (name, help) in of_each.chain([("", whole.get_after_help())]) {
            let help = help.map(ToString::to_string).unwrap_or_default();
            let lines: Vec<_> = help.lines().skip(1).collect();
            assert!(!lines.is_empty(), "{name} has no example");
            for line in lines {
                assert!(line.contains(&format!("shimd {name}")) && line.chars().count() <= 100, "{line}");
                let words = words(line).unwrap();
                assert!(Cli::try_parse_from(&words).is_ok(), "{line}: {words:?}");
            }
        }
    }
}
