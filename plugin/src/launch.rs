//! Starts a `shimd` that lives on by itself.
//!
//! `shimd run --detach` takes a session of its own and closes what it inherits beyond stdio, which is null here, and
//! the log for stderr. So neither the shell's pipes nor its terminal are held while the daemon lives.
//!
//! Two commands may start one at once. One daemon wins the lock, the other ends, and both commands connect to the one
//! that listens: what counts is that the control socket answers, not whose daemon it is.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::{AccessFlags, access};
use nu_plugin::EngineInterface;
use nu_protocol::LabeledError;
use shimd_api::{Client, ClientError, Home};

use crate::daemon::CONNECT;
use crate::error::{self, Blame};
use crate::place;
use crate::progress::ProgressLine;

/// The daemon's program.
const PROGRAM: &str = "shimd";

/// Why none can be started.
pub const NOT_FOUND: &str = "none is found to start";

/// What to do about that.
pub const INSTALL: &str = "install shimd beside nu_plugin_proc, or put its folder on $env.PATH";

/// How long a new daemon may take until its control socket answers.
const START: Duration = Duration::from_secs(10);

/// The same for one that replaces another, which it ends first: in order within 10 s, by force within 5 s more.
const REPLACE: Duration = Duration::from_secs(25);

/// How `shimd run` ends when another daemon has the home.
const ALREADY: i32 = 3;

/// How often to look.
const LOOK: Duration = Duration::from_millis(5);

/// How many lines of its log tell why a daemon did not come up.
const TOLD: usize = 5;

/// Starts a daemon and connects to it.
///
/// # Errors
/// `proc::no_daemon` says why none came up, with the last lines of its log.
pub fn start(
    engine: &EngineInterface,
    home: &Home,
    blame: &Blame,
    line: &mut ProgressLine,
) -> Result<Client, LabeledError> {
    launch(engine, home, blame, None, line)
}

/// Starts a daemon in the place of the one that runs, if one does, and connects to it. `root`: the folder in which that
/// one has the sockets that are declared by a basename.
///
/// # Errors
/// The same; the daemon that runs goes on, unless the message says otherwise.
pub fn replace(
    engine: &EngineInterface,
    home: &Home,
    blame: &Blame,
    root: Option<String>,
    line: &mut ProgressLine,
) -> Result<Client, LabeledError> {
    launch(engine, home, blame, Some(root), line)
}

/// `replacing`: the socket root to go on with, if it is known.
fn launch(
    engine: &EngineInterface,
    home: &Home,
    blame: &Blame,
    replacing: Option<Option<String>>,
    line: &mut ProgressLine,
) -> Result<Client, LabeledError> {
    let program = find(engine)
        .ok_or_else(|| error::no_start(format!("no {PROGRAM} runs, and {NOT_FOUND}"), blame.head, INSTALL))?;
    let log = home.daemon_log();
    let no_log = |problem: io::Error| {
        let help =
            format!("make {} writable, or name another folder: $env.SHIMD_HOME = ...", home.state.display());
        error::no_start(format!("cannot write {}: {problem}", log.display()), blame.head, &help)
    };
    let (file, told_before) = open_log(&log).map_err(no_log)?;
    let mut command = command(engine, home, &program, file);
    let replaces = replacing.is_some();
    if let Some(root) = replacing {
        command.arg("--replace").envs(root.map(|root| ("HERO_SOCKET_DIR", root)));
    }
    let mut child = command.spawn().map_err(|problem| {
        let help = format!("see that {} can be executed", program.display());
        error::no_start(format!("cannot start {}: {problem}", program.display()), blame.head, &help)
    })?;
    let connected = match replaces {
        false => connect(engine, &mut child, &home.control_socket(), line),
        true => taken_over(engine, &mut child, home, line),
    };
    // Whether it serves or ends: no zombie stays behind while this plugin lives.
    std::thread::spawn(move || child.wait());
    connected.map_err(|failure| match failure {
        Failure::Ended(_) if replaces => {
            let problem = format!("shimd was not replaced{}", last_lines(&log, told_before));
            error::not_replaced(problem, blame.head, &format!("its log is {}", log.display()))
        }
        Failure::Ended(status) => {
            let problem =
                format!("shimd ended ({status}) instead of serving{}", last_lines(&log, told_before));
            error::no_start(problem, blame.head, &format!("its log is {}", log.display()))
        }
        Failure::Client(ClientError::NoDaemon { .. }) => {
            let waited = if replaces { REPLACE } else { START }.as_secs();
            let problem = format!("shimd did not serve within {waited} s{}", last_lines(&log, told_before));
            error::no_start(problem, blame.head, &format!("its log is {}", log.display()))
        }
        Failure::Client(error) => error::request(error, blame),
    })
}

enum Failure {
    Ended(ExitStatus),
    Client(ClientError),
}

/// Connects as soon as a daemon, this or another one, listens.
fn connect(
    engine: &EngineInterface,
    child: &mut Child,
    socket: &Path,
    line: &mut ProgressLine,
) -> Result<Client, Failure> {
    let began = Instant::now();
    let cancelled = || engine.signals().interrupted();
    let mut ended = None;
    loop {
        match Client::connect_unless(socket, CONNECT, &cancelled) {
            Err(error @ ClientError::NoDaemon { .. }) => match ended {
                Some(status) if !has_rival(status) => return Err(Failure::Ended(status)),
                _ if began.elapsed() >= START => return Err(Failure::Client(error)),
                _ => {}
            },
            other => return other.map_err(Failure::Client),
        }
        if cancelled() {
            return Err(Failure::Client(ClientError::Cancelled));
        }
        // Looked at before the next attempt to connect: a daemon that came up and ended at once was there.
        ended = ended.or_else(|| child.try_wait().ok().flatten());
        line.waits(began.elapsed(), "shimd comes up");
        std::thread::sleep(LOOK);
    }
}

/// Connects once the new daemon has the home: its control socket is there before that, and its clients wait.
fn taken_over(
    engine: &EngineInterface,
    child: &mut Child,
    home: &Home,
    line: &mut ProgressLine,
) -> Result<Client, Failure> {
    let began = Instant::now();
    let new = child.id().to_string();
    while std::fs::read_to_string(home.lock()).is_ok_and(|pid| pid.trim() != new) && began.elapsed() < REPLACE
    {
        line.waits(began.elapsed(), "shimd is replaced");
        if engine.signals().interrupted() {
            return Err(Failure::Client(ClientError::Cancelled));
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(Failure::Ended(status));
        }
        std::thread::sleep(LOOK);
    }
    connect(engine, child, &home.control_socket(), line)
}

/// Whether the daemon ended because another one has the home, and so will listen.
fn has_rival(status: ExitStatus) -> bool {
    status.code() == Some(ALREADY)
}

fn command(engine: &EngineInterface, home: &Home, program: &Path, log: File) -> Command {
    let environment = place::environment(engine).into_iter().filter(|(name, _)| is_daemons(name));
    let mut command = Command::new(program);
    command
        .args(["run", "--detach"])
        .env_clear()
        .envs(environment)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    if home.state == home.run {
        // Named by the environment, or else by the user's settings, of which the daemon knows nothing.
        command.env("SHIMD_HOME", &home.state);
    }
    command
}

/// What of a user's environment the daemon, and so each service, is given: what says where things are and how to
/// speak, and nothing that happens to be set in this one shell.
fn is_daemons(variable: &str) -> bool {
    const NAMES: &[&str] = &[
        "HOME",
        "PATH",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "LD_LIBRARY_PATH",
        "RUST_LOG",
        "RUST_BACKTRACE",
    ];
    const FAMILIES: &[&str] = &["SHIMD_", "HERO_", "XDG_", "LC_"];
    NAMES.contains(&variable) || FAMILIES.iter().any(|family| variable.starts_with(family))
}

/// The `shimd` beside this plugin, else the first on the user's `PATH`.
pub fn find(engine: &EngineInterface) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|plugin| Some(plugin.parent()?.join(PROGRAM)));
    let path = place::variable(engine, "PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(on_path(&path))
        .find(|file| file.is_file() && access(file, AccessFlags::X_OK).is_ok())
}

/// A relative folder on `PATH` would mean another place from the plugin's own folder: it is passed over.
fn on_path(path: &OsString) -> impl Iterator<Item = PathBuf> {
    std::env::split_paths(path).filter(|folder| folder.is_absolute()).map(|folder| folder.join(PROGRAM))
}

/// Opens the log for append; gives its length before.
fn open_log(log: &Path) -> io::Result<(File, u64)> {
    if let Some(folder) = log.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(log)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// The last lines that were written after `from`, ready to follow a message.
fn last_lines(log: &Path, from: u64) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let start = file.metadata()?.len().saturating_sub(4096).max(from);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(4096).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let told = lines.get(lines.len().saturating_sub(TOLD)..).unwrap_or_default();
    if told.is_empty() { String::new() } else { format!(":\n{}", told.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_said_this_time_is_told() {
        let folder = crate::testing::Folder::new();
        let log = folder.path().join("state/shimd.log");
        let (file, before) = open_log(&log).unwrap();
        assert_eq!(before, 0);
        drop(file);
        std::fs::write(&log, "an older line\n").unwrap();
        let (mut file, before) = open_log(&log).unwrap();
        assert_eq!(last_lines(&log, before), "");
        io::Write::write_all(&mut file, b"cannot open state.db\n\n  disk full\n").unwrap();
        assert_eq!(last_lines(&log, before), ":\ncannot open state.db\ndisk full");
        io::Write::write_all(&mut file, "x\n".repeat(9000).as_bytes()).unwrap();
        assert_eq!(last_lines(&log, before), format!(":\n{}", ["x"; TOLD].join("\n")));
    }

    #[test]
    fn a_relative_folder_of_path_is_passed_over() {
        let found: Vec<PathBuf> = on_path(&"/bin:bin::/opt/b".into()).collect();
        assert_eq!(found, [Path::new("/bin/shimd"), Path::new("/opt/b/shimd")]);
    }

    #[test]
    fn the_daemon_gets_places_and_no_secrets() {
        assert!(
            ["SHIMD_HOME", "HERO_SOCKET_DIR", "HOME", "PATH", "XDG_STATE_HOME", "LC_ALL"]
                .iter()
                .all(|n| is_daemons(n))
        );
        assert!(!["AWS_SECRET_ACCESS_KEY", "PWD", "NU_VERSION", "config"].iter().any(|n| is_daemons(n)));
    }
}
