//! `shimd wrap`: the care of the daemon for one service beneath any other supervisor, as a prefix to its command line.
//!
//! ```text
//! supervisor (systemd, s6, runit, supervisord, …)
//! └─ wrap              what the supervisor sees: cleans, verifies, pins, heals, hands signals on, says READY=1
//!    └─ keeper         spawns, reaps, signals; ends all when wrap is gone
//!       └─ the service and all that it starts
//! ```
//!
//! | file | does |
//! | --- | --- |
//! | `args` | the command line, checked |
//! | `table` | pure: what to do with the service at which event |
//! | `care` | pure: what to do about one socket's verdict |
//! | `keeper` | the process between wrap and the service |
//! | `inherited` | mask and dispositions, as without us |
//! | `signals`, `notify` | what comes from above, and sd_notify both ways |
//! | `sockets`, `sweep` | the sockets: looked at, pinned, put back; cleaned before a spawn |
//! | `turns` | the loop around them |

pub mod args;
pub mod care;
mod inherited;
mod keeper;
mod notify;
mod signals;
mod sockets;
mod sweep;
pub mod table;
mod turns;

use std::fmt;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use args::{Plan, WrapArgs};
use inherited::Inherited;
use keeper::{Keeper, KeeperError};
use notify::{Manager, ReadyFd};
use table::{End, FAULT};

/// Exit status for a command line that cannot be.
const USAGE: u8 = 2;

/// One line on stderr. One that nobody reads is not missed.
pub(crate) fn tell(words: fmt::Arguments<'_>) {
    let line = format!("shimd wrap: {words}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// What goes wrong with wrap itself.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    #[error("cannot ask the kernel about sockets: {0}")]
    Audit(#[from] socket_audit::AuditError),
    #[error("cannot {0}: {1}; raise the limits of processes and open files")]
    Io(&'static str, std::io::Error),
    #[error("NOTIFY_SOCKET: {}; unset it, or correct it", .0.desc())]
    Manager(nix::errno::Errno),
}

/// Runs a service with care, and ends as it does.
pub fn run(args: WrapArgs) -> ExitCode {
    let plan = match Plan::of(args) {
        Ok(plan) => Arc::new(plan),
        Err(error) => return failed(&error, USAGE),
    };
    let ready = match plan.notify_fd.map(ReadyFd::take).transpose() {
        Ok(ready) => ready,
        Err(_) => {
            let words = "--notify-fd: no descriptor of this number is open; let the supervisor open it (s6: the file notification-fd)";
            return failed(&words, USAGE);
        }
    };
    let end = match care_for(&plan, ready) {
        Ok(end) => end,
        Err(fault) => return failed(&fault, FAULT),
    };
    match end {
        End::With(status) => ExitCode::from(status),
        End::Of(status) if libc::WIFEXITED(status) => ExitCode::from(libc::WEXITSTATUS(status) as u8),
        End::Of(status) => {
            let signal = libc::WTERMSIG(status);
            inherited::die_of(signal);
            // The first process of a container does not die of it: as a shell says it.
            ExitCode::from((128 + signal) as u8)
        }
    }
}

fn failed(error: &dyn fmt::Display, status: u8) -> ExitCode {
    tell(format_args!("{error}"));
    ExitCode::from(status)
}

fn care_for(plan: &Arc<Plan>, ready: Option<ReadyFd>) -> Result<End, Fault> {
    let inherited = Inherited::take().map_err(|errno| Fault::Io("block signals", errno.into()))?;
    let manager = Manager::of(std::env::var_os("NOTIFY_SOCKET")).map_err(Fault::Manager)?;
    let address = plan.notify.then(|| notify::address(plan.wrap));
    // Before any thread, and before any descriptor that the keeper would hold too.
    let keeper = Keeper::start(plan, &inherited, address.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|e| Fault::Io("start the runtime", e))?;
    let end = runtime.block_on(turns::run(plan, &keeper, &manager, ready));
    // Whatever is left of the service ends with its keeper.
    keeper.end();
    end
}
