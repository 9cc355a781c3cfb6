//! The command line of `shimd`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Keeps the Unix sockets of services reachable: cleans stale ones before a start, verifies after it, audits
/// for ever by the kernel's truth.
#[derive(Parser)]
#[command(name = "shimd", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  shimd run                                   the daemon, in the foreground
  shimd run --replace                         the same, in the place of the one that runs: after an upgrade
  shimd check /run/redis/redis.sock           is it served? exit 0 ok, 1 not ok, 2 cannot tell
  shimd check --json /run/*.sock              the same for programs
  shimd wrap --socket /run/app.sock -- app -x  a prefix for any supervisor: cleans, verifies, heals, says READY=1";

#[derive(Subcommand)]
enum Command {
    /// Run the daemon in the foreground; one a home (SHIMD_HOME). SIGTERM ends it, its services live on
    Run {
        /// Leave the caller's session and close its descriptors (what the Nushell plugin starts)
        #[arg(long)]
        detach: bool,
        /// Take the place of the shimd that runs in this home, of this version or another; no service is touched
        #[arg(long)]
        replace: bool,
    },
    /// Audit any socket paths: no daemon needed. Exit 0: all ok, 1: some not ok, 2: usage, or cannot tell
    Check(shimd::check::CheckArgs),
    /// Run one service beneath any supervisor, and keep its sockets reachable. Ends as the service does; 2: usage,
    /// 125: wrap's own fault, 126, 127: the program cannot be run
    Wrap(shimd::wrap::args::WrapArgs),
    /// Print the version
    Version,
}

fn main() -> ExitCode {
    // Before anything else: the trampoline is on the way of every start.
    let is = |argument: &str| std::env::args_os().nth(1).is_some_and(|arg| arg == argument);
    if is("__exec") {
        shimd::sys::exec::trampoline(false);
    }
    if is(shimd::sys::template::ARGUMENT) {
        shimd::sys::template::main();
    }
    if is(socket_audit::bridge::ARGUMENT) {
        return shimd::bridge::main();
    }
    match Cli::parse().command {
        Command::Run { detach, replace } => shimd::daemon::run(detach, replace),
        Command::Check(args) => shimd::check::run(&args),
        Command::Wrap(args) => shimd::wrap::run(args),
        Command::Version => {
            println!("shimd {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
    }
}
