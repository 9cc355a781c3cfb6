//! A small server of the project's own, with the habits of real ones: `unixd [OPTIONS] [stream:|dgram:|seqpacket:]PATH...`
//! (`@NAME` is abstract: no file.)
//!
//! It answers each line of a client: `ping` → `pong PID`, `env NAME`, `uid`, `gid`, `cwd`, `args`, `fds` (the numbers of its
//! open files), `say TEXT` (writes it to its output). `unixd ask TYPE PATH LINE` is a client; `unixd probe TYPE PATH` says what one sees.
//!
//! | option | habit |
//! | --- | --- |
//! | `--refuse-stale` | no unlink before bind: exit 1 when the file exists |
//! | `--run-on` | with `--refuse-stale`: lives on without the socket |
//! | `--bind-temp-rename` | binds PATH.PID.tmp and renames it into place before it listens |
//! | `--relative` | changes into the folder and binds the bare name |
//! | `--activated` | binds nothing: serves on what `LISTEN_FDS` hands over, as many as it has PATHs |
//! | `--finish` | SIGTERM: accepts nobody any more, and exits once those who were accepted have gone |
//! | `--listen-after MS` | bound, and not listening yet, for so long |
//! | `--fork-workers N` | workers inherit the first listener and go on with it when the main process is killed |
//! | `--workers-unlink` | a worker that ends at SIGTERM unlinks the paths, as if it were the server |
//! | `--child-holds` | a child in a session of its own holds the listeners, and lives on when the main process ends |
//! | `--child-stays` | the same, and it ignores SIGTERM |
//! | `--child-escapes` | the same, and it has nothing of the service's environment either |
//! | `--drop-user NAME` | becomes that user after the bind |
//! | `--ignore-term` | SIGTERM does nothing |
//! | `--unlink-at-exit` | SIGTERM: unlinks whatever lies at its paths, and exits |
//! | `--unlink-late MS` | SIGTERM: closes, waits, unlinks whatever lies at its paths by then, and exits |
//! | `--unlink-late-child MS` | SIGTERM: exits at once; a child in a session of its own waits and unlinks |
//! | `--reload` | SIGHUP: unlinks its paths, binds and listens anew |
//! | `--reload-takes MS` | the same, with so long between the two |
//! | `--close`, `--close-unlinks` | SIGUSR2: closes its listeners, and lives on; unlinks its paths too |
//! | `--exec` | SIGUSR2: executes itself anew, its first listener left open: the same process |
//! | `--give PATH`, `--take PATH` | SIGUSR2: passes its first listener to whoever listens at PATH; takes what is passed there, and serves on it |
//! | `--backlog N` | so many clients may wait |
//! | `--accept-every MS` | accepts one client in so long |
//! | `--stop-accepting` | SIGUSR1: accepts nobody any more |
//! | `--churn N` | N further listeners in its first path's folder, of which one comes and one goes each millisecond |
//! | `--notify`, `--marker FILE` | once it listens: `READY=1` to `NOTIFY_SOCKET`; makes the file |
//! | `--ready-after MS` | with either of them: only after so long |
//! | `--fail-first N --journal FILE` | exit 1 at once in the first N starts that the journal has |
//! | `--exit-after MS`, `--exit-code N` | ends by itself, 0 unless said otherwise |
//! | `--journal FILE`, `--tag TEXT` | adds `start TAG PID`, `ready TAG PID`, `stop TAG PID` lines |

mod churn;
mod endpoint;
mod habits;
mod hand_over;
mod server;

use crate::endpoint::Endpoint;
use crate::habits::{Habits, habits, millis};
use crate::server::{remove, serve, start};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::setsid;
use scenarios::client::{ask, socket_type};
use scenarios::probe::probe;
use std::error::Error;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

/// What goes wrong is told, and ends it.
type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("unixd: {error}");
            ExitCode::from(1)
        }
    }
}

fn run(arguments: &[String]) -> Result<u8> {
    match arguments {
        [command, kind, path, line @ ..] if command == "ask" => {
            let kind = socket_type(kind).ok_or("TYPE is stream, dgram or seqpacket")?;
            println!("{}", ask(Path::new(path), kind, &line.join(" ")).map_err(|fault| fault.to_string())?);
            Ok(0)
        }
        [command, kind, path] if command == "probe" => {
            let kind = socket_type(kind).ok_or("TYPE is stream, dgram or seqpacket")?;
            println!("{}", probe(Path::new(path), kind).map_err(|fault| fault.to_string())?);
            Ok(0)
        }
        // The children that some habits need. Their listener is their standard input.
        [command, kind, paths @ ..] if command == "__worker" => {
            let kind = socket_type(kind).ok_or("no type")?;
            let listener = std::io::stdin().as_fd().try_clone_to_owned()?;
            let sockets = paths.iter().map(|path| (kind, path.into())).collect();
            let habits = Habits { sockets, unlink_at_exit: true, ..Habits::default() };
            serve(&habits, vec![Endpoint::of(kind, listener)], Vec::new())
        }
        [command, stays, ..] if command == "__hold" => {
            setsid()?;
            let mut set = SigSet::empty();
            set.add(Signal::SIGTERM);
            if stays == "true" {
                set.thread_block()?;
            }
            loop {
                std::thread::park();
            }
        }
        [command, after, paths @ ..] if command == "__unlink" => {
            setsid()?;
            std::thread::sleep(millis(after)?);
            remove(paths.iter().map(Path::new));
            Ok(0)
        }
        _ => start(&habits(arguments)?),
    }
}
