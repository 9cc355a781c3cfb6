//! The program `shimd`.

use std::process::ExitCode;

use clap::Parser;
use shimd::cli::{Cli, Command};

fn main() -> ExitCode {
    // Before anything else: the trampoline is on the way of every start.
    let is = |argument: &str| std::env::args_os().nth(1).is_some_and(|arg| arg == argument);
    if is("__exec") {
        shimd::sys::exec::trampoline();
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
