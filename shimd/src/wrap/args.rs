//! The command line, checked: what is to be run, and which sockets are to be kept.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use shimd_api::duration::parse_duration_text;
use shimd_api::spec::OnMissing;

use crate::sys::tree;

/// The longest path that a socket can be bound to (`sun_path`, less its NUL).
const LONGEST: usize = 107;

/// What to run, and how to look after it.
#[derive(Debug, Clone, clap::Args)]
pub struct WrapArgs {
    /// A socket of the service, as clients name it; repeat for each. `@name`: an abstract one
    #[arg(long = "socket", value_name = "PATH")]
    sockets: Vec<PathBuf>,
    /// What to do when a live socket's file is lost: relink, restart or report
    #[arg(long, value_name = "M", default_value = "relink", value_parser = on_missing)]
    on_missing: OnMissing,
    /// The service speaks sd_notify: await its READY=1 too, and hand on the rest
    #[arg(long)]
    notify: bool,
    /// When ready, write a newline to this descriptor and close it (s6)
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(i32).range(1..))]
    notify_fd: Option<i32>,
    /// How long a file that the service itself removed may stay away (a reload)
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = duration)]
    settle: Duration,
    /// End the service and fail if it is not ready in time; without it, wait
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ready_timeout: Option<Duration>,
    /// How long what is left of the service may take to stop before it is killed
    #[arg(long, value_name = "DURATION", default_value = "10sec", value_parser = duration)]
    stop_timeout: Duration,
    /// The program and its arguments; `{socket}` or `{socket:NAME}` becomes a private path, published once it is served
    #[arg(last = true, required = true, value_name = "PROGRAM [ARGS]")]
    command: Vec<OsString>,
}

fn on_missing(text: &str) -> Result<OnMissing, String> {
    [OnMissing::Relink, OnMissing::Restart, OnMissing::Report]
        .into_iter()
        .find(|means| means.as_str() == text)
        .ok_or_else(|| "write relink, restart or report".into())
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration_text(text).map_err(|bad| bad.to_string())
}

/// An argument that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}; {fix}")]
pub struct UsageError {
    /// The option, or the argument's place.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do.
    pub fix: String,
}

/// One socket to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Where clients connect; links in its folder are resolved.
    pub path: PathBuf,
    /// The service binds a private path, which is published: that path, less its generation.
    pub private: Option<PathBuf>,
}

impl Declared {
    /// It has no dentry: it can only be looked at.
    pub fn is_abstract(&self) -> bool {
        self.path.as_os_str().as_bytes().starts_with(b"@")
    }

    /// The path that the service binds in this generation.
    pub fn bound(&self, generation: u32) -> PathBuf {
        let Some(private) = &self.private else { return self.path.clone() };
        let mut path = private.clone().into_os_string();
        path.push(generation.to_string());
        path.into()
    }
}

/// A name beside the public one, which no other wrap and no other socket has.
fn private(path: &Path, wrap: u32) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{wrap}-"));
    path.with_file_name(name)
}

/// A command line that makes sense.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The sockets, in the order of the options.
    pub sockets: Vec<Declared>,
    /// What to do about a lost dentry.
    pub on_missing: OnMissing,
    /// The service says READY=1 too.
    pub notify: bool,
    /// Where a newline says that it is ready.
    pub notify_fd: Option<i32>,
    /// How long a reload may take.
    pub settle: Duration,
    /// How long a start may take.
    pub ready_timeout: Option<Duration>,
    /// How long a stop may take.
    pub stop_timeout: Duration,
    /// This process's number, also for those that it forks.
    pub wrap: i32,
    /// The mark of the service's processes (`SHIMD_INSTANCE`): less its last part, the same in every run.
    pub mark: String,
    command: Vec<OsString>,
}

/// A piece of an argument.
enum Piece<'a> {
    Text(&'a [u8]),
    /// The name in `{socket:NAME}`; `None` for `{socket}`.
    Socket(Option<&'a [u8]>),
}

impl Plan {
    /// Checks the arguments.
    ///
    /// # Errors
    /// The first that cannot be, with its option.
    pub fn of(args: WrapArgs) -> Result<Plan, UsageError> {
        let mut paths = Vec::new();
        for given in &args.sockets {
            let path = place(given)?;
            if paths.contains(&path) {
                let problem = format!("{} is named twice", given.display());
                return Err(usage("--socket", problem, "name each socket once"));
            }
            paths.push(path);
        }
        let published = published(&args, &paths)?;
        let wrap = std::process::id();
        let declared = |(at, path): (usize, PathBuf)| Declared {
            private: published.contains(&at).then(|| private(&path, wrap)),
            path,
        };
        let sockets: Vec<Declared> = paths.into_iter().enumerate().map(declared).collect();
        // The longest that a generation can make it.
        for socket in &sockets {
            let bound = socket.bound(u32::MAX);
            let length = bound.as_os_str().len();
            if length > LONGEST && !socket.is_abstract() {
                let problem = format!(
                    "{} is {length} bytes long, and a socket's path holds {LONGEST}",
                    bound.display()
                );
                return Err(usage("--socket", problem, "use a shorter folder or name"));
            }
        }
        for (at, part) in args.command.iter().enumerate() {
            if part.as_bytes().contains(&0) {
                return Err(usage(&format!("argument {at}"), "it has a NUL in it".into(), "leave it out"));
            }
        }
        if args.command.first().is_none_or(|program| program.is_empty()) {
            return Err(usage("PROGRAM", "is empty".into(), "name a program after --"));
        }
        let all: PathBuf =
            sockets.iter().map(|socket| socket.path.strip_prefix("/").unwrap_or(&socket.path)).collect();
        Ok(Plan {
            wrap: wrap as i32,
            mark: format!("wrap/{}/{wrap}", tree::home_tag(&all)),
            sockets,
            on_missing: args.on_missing,
            notify: args.notify,
            notify_fd: args.notify_fd,
            settle: args.settle,
            ready_timeout: args.ready_timeout,
            stop_timeout: args.stop_timeout,
            command: args.command,
        })
    }

    /// The service's argv in this generation.
    pub fn argv(&self, generation: u32) -> Vec<CString> {
        let of = |part: &OsString| {
            let mut bytes = Vec::new();
            for piece in pieces(part, !self.sockets.is_empty()) {
                match piece {
                    Piece::Text(text) => bytes.extend(text),
                    Piece::Socket(name) => {
                        let socket = find(self.sockets.iter().map(|socket| socket.path.as_path()), name);
                        let path =
                            socket.and_then(|at| self.sockets.get(at)).map(|found| found.bound(generation));
                        bytes.extend(path.unwrap_or_default().into_os_string().into_vec());
                    }
                }
            }
            // Without a NUL: it was looked for.
            CString::new(bytes).unwrap_or_default()
        };
        self.command.iter().map(of).collect()
    }

    /// The program's name, for messages.
    pub fn program(&self) -> &OsStr {
        self.command.first().map_or(OsStr::new(""), OsString::as_os_str)
    }
}

fn usage(field: &str, problem: String, fix: &str) -> UsageError {
    UsageError { field: field.to_owned(), problem, fix: fix.to_owned() }
}

/// The absolute path, by the real folder where that exists: a link in a folder's place is followed now and not later.
fn place(given: &Path) -> Result<PathBuf, UsageError> {
    if given.as_os_str().as_bytes().starts_with(b"@") {
        return Ok(given.to_owned());
    }
    let problem = |problem| {
        usage("--socket", problem, "name the file that clients connect to, such as /run/app/app.sock")
    };
    let absolute =
        std::path::absolute(given).map_err(|e| problem(format!("{:?}: {e}", given.display().to_string())))?;
    let ends_in_name = !given.as_os_str().as_bytes().ends_with(b"/");
    match (absolute.parent(), absolute.file_name()) {
        (Some(folder), Some(name)) if ends_in_name => {
            Ok(folder.canonicalize().unwrap_or_else(|_| folder.to_owned()).join(name))
        }
        _ => Err(problem(format!("{} does not end in a name", given.display()))),
    }
}

/// Which sockets the arguments have a placeholder for.
fn published(args: &WrapArgs, paths: &[PathBuf]) -> Result<BTreeSet<usize>, UsageError> {
    let mut published = BTreeSet::new();
    for (at, part) in args.command.iter().enumerate() {
        for piece in pieces(part, !paths.is_empty()) {
            let Piece::Socket(name) = piece else { continue };
            let field = format!("argument {at}");
            let words = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
            let Some(index) = find(paths.iter().map(PathBuf::as_path), name) else {
                return Err(match name {
                    None => {
                        usage(&field, "{socket} may be any of several sockets".into(), "write {socket:NAME}")
                    }
                    Some(_) => usage(
                        &field,
                        format!("no one --socket is called {words}"),
                        "name it by its file name or its path",
                    ),
                });
            };
            if paths.get(index).is_some_and(|path| path.as_os_str().as_bytes().starts_with(b"@")) {
                let problem = format!("{words} is abstract and cannot be published");
                return Err(usage(&field, problem, "write its name in place of the placeholder"));
            }
            published.insert(index);
        }
    }
    Ok(published)
}

/// The only socket, or the one of this file name or path.
fn find<'a>(paths: impl Iterator<Item = &'a Path>, name: Option<&[u8]>) -> Option<usize> {
    let fits = |path: &Path| match name {
        None => true,
        Some(name) => {
            path.as_os_str().as_bytes() == name
                || path.file_name().is_some_and(|file| file.as_bytes() == name)
        }
    };
    let mut found = paths.enumerate().filter(|(_, path)| fits(path)).map(|(at, _)| at);
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// Takes an argument apart. Without a socket to put in, braces are braces.
fn pieces(part: &OsStr, sockets: bool) -> Vec<Piece<'_>> {
    const OPEN: &[u8] = b"{socket";
    let mut pieces = Vec::new();
    let mut rest = part.as_bytes();
    let mut from = 0;
    while let Some(at) =
        rest.get(from..).and_then(|tail| tail.windows(OPEN.len()).position(|part| part == OPEN))
    {
        let start = from + at;
        let inside = rest.get(start + OPEN.len()..).unwrap_or_default();
        let end = inside.iter().position(|&byte| byte == b'}');
        let name = end.and_then(|end| inside.get(..end)).filter(|_| sockets);
        match (name, end) {
            (Some(name), Some(end)) if name.is_empty() || name.starts_with(b":") => {
                pieces.push(Piece::Text(rest.get(..start).unwrap_or_default()));
                pieces.push(Piece::Socket(name.strip_prefix(b":")));
                rest = inside.get(end + 1..).unwrap_or_default();
                from = 0;
            }
            _ => from = start + OPEN.len(),
        }
    }
    pieces.push(Piece::Text(rest));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: WrapArgs,
    }

    fn plan(line: &[&str]) -> Result<Plan, String> {
        let cli = Cli::try_parse_from([&["wrap"], line].concat()).map_err(|e| e.to_string())?;
        Plan::of(cli.args).map_err(|e| e.to_string())
    }

    fn argv(line: &[&str]) -> Vec<String> {
        let argv = plan(line).unwrap().argv(3);
        argv.into_iter().map(|part| part.into_string().unwrap()).collect()
    }

    #[test]
    fn placeholders_become_private_paths_of_the_generation() {
        let pid = std::process::id();
        let one = argv(&["--socket", "/nowhere/a.sock", "--", "x", "-l{socket},{other}", "{socket:a.sock}"]);
        let private = format!("/nowhere/.a.sock.{pid}-3");
        assert_eq!(one, ["x".to_owned(), format!("-l{private},{{other}}"), private]);
        let two = argv(&["--socket", "/n/a", "--socket", "/m/b", "--", "x", "{socket:/m/b}", "/n/a"]);
        assert_eq!(two, ["x".to_owned(), format!("/m/.b.{pid}-3"), "/n/a".to_owned()]);
        let plan = plan(&["--socket", "/n/a", "--socket", "/m/b", "--", "x", "{socket:b}"]).unwrap();
        assert_eq!(
            plan.sockets.iter().map(|socket| socket.private.is_some()).collect::<Vec<_>>(),
            [false, true]
        );
    }

    #[test]
    fn without_a_socket_braces_are_braces() {
        assert_eq!(
            argv(&["--", "x", "{socket}", "{socket:a}", "{socket"]),
            ["x", "{socket}", "{socket:a}", "{socket"]
        );
    }

    #[test]
    fn what_cannot_be_names_its_field_and_the_way_out() {
        let told = |line: &[&str]| plan(line).unwrap_err();
        assert_eq!(
            told(&["--socket", "/n/a", "--socket", "/n/b", "--", "x", "{socket}"]),
            "argument 1: {socket} may be any of several sockets; write {socket:NAME}"
        );
        assert!(
            told(&["--socket", "/n/a", "--", "x", "{socket:b}"])
                .starts_with("argument 1: no one --socket is called b; ")
        );
        assert!(
            told(&["--socket", "/n/a", "--socket", "/n/a", "--", "x"])
                .starts_with("--socket: /n/a is named twice; ")
        );
        assert!(told(&["--socket", "/n/", "--", "x"]).starts_with("--socket: /n/ does not end in a name; "));
        assert!(
            told(&["--socket", &format!("/n/{}", "a".repeat(110)), "--", "x"]).contains("113 bytes long")
        );
        assert!(told(&["--socket", "/n/a"]).contains("PROGRAM"));
        assert!(told(&["--on-missing", "pray", "--", "x"]).contains("write relink, restart or report"));
        assert!(told(&["--settle", "soon", "--", "x"]).contains("write a duration such as 500ms"));
    }
}
