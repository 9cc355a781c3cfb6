//! The habits that the options name: the table in `main.rs`.

use crate::Result;
use nix::sys::socket::SockType;
use scenarios::client::socket_type;
use std::path::PathBuf;
use std::time::Duration;

/// How many clients may wait, unless an option says it.
const BACKLOG: i32 = 64;

/// What a child that keeps the listeners is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// It ends at SIGTERM.
    Holds,
    /// It does not.
    Stays,
    /// Nor has it anything of the service's environment.
    Escapes,
}

/// See the table in `main.rs`.
#[derive(Default)]
pub struct Habits {
    pub sockets: Vec<(SockType, PathBuf)>,
    pub refuse_stale: bool,
    pub run_on: bool,
    pub temp_rename: bool,
    pub relative: bool,
    pub activated: bool,
    pub finish: bool,
    pub listen_after: Duration,
    pub workers: usize,
    pub workers_unlink: bool,
    pub child: Option<Keeper>,
    pub drop_user: Option<String>,
    pub ignore_term: bool,
    pub unlink_at_exit: bool,
    pub unlink_late: Option<Duration>,
    pub unlink_late_child: Option<Duration>,
    pub reload: bool,
    pub reload_takes: Duration,
    pub close: bool,
    pub close_unlinks: bool,
    pub exec: bool,
    pub give: Option<PathBuf>,
    pub take: Option<PathBuf>,
    pub backlog: i32,
    pub accept_every: Option<Duration>,
    pub churn: usize,
    pub stop_accepting: bool,
    pub notify: bool,
    pub marker: Option<PathBuf>,
    pub ready_after: Duration,
    pub fail_first: usize,
    pub exit_after: Option<Duration>,
    pub exit_code: u8,
    pub journal: Option<PathBuf>,
    pub tag: String,
}

/// Reads them from the command line.
pub fn habits(arguments: &[String]) -> Result<Habits> {
    let mut habits = Habits { tag: "unixd".to_owned(), backlog: BACKLOG, ..Habits::default() };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--refuse-stale" => habits.refuse_stale = true,
            "--run-on" => habits.run_on = true,
            "--bind-temp-rename" => habits.temp_rename = true,
            "--relative" => habits.relative = true,
            "--activated" => habits.activated = true,
            "--finish" => habits.finish = true,
            "--listen-after" => habits.listen_after = millis(value()?)?,
            "--fork-workers" => habits.workers = value()?.parse()?,
            "--workers-unlink" => habits.workers_unlink = true,
            "--child-holds" => habits.child = Some(Keeper::Holds),
            "--child-stays" => habits.child = Some(Keeper::Stays),
            "--child-escapes" => habits.child = Some(Keeper::Escapes),
            "--drop-user" => habits.drop_user = Some(value()?.clone()),
            "--ignore-term" => habits.ignore_term = true,
            "--unlink-at-exit" => habits.unlink_at_exit = true,
            "--unlink-late" => habits.unlink_late = Some(millis(value()?)?),
            "--unlink-late-child" => habits.unlink_late_child = Some(millis(value()?)?),
            "--reload" => habits.reload = true,
            "--reload-takes" => {
                habits.reload = true;
                habits.reload_takes = millis(value()?)?;
            }
            "--close" => habits.close = true,
            "--close-unlinks" => (habits.close, habits.close_unlinks) = (true, true),
            "--exec" => habits.exec = true,
            "--give" => habits.give = Some(value()?.into()),
            "--take" => habits.take = Some(value()?.into()),
            "--backlog" => habits.backlog = value()?.parse()?,
            "--accept-every" => habits.accept_every = Some(millis(value()?)?),
            "--churn" => habits.churn = value()?.parse()?,
            "--stop-accepting" => habits.stop_accepting = true,
            "--notify" => habits.notify = true,
            "--marker" => habits.marker = Some(value()?.into()),
            "--ready-after" => habits.ready_after = millis(value()?)?,
            "--fail-first" => habits.fail_first = value()?.parse()?,
            "--exit-after" => habits.exit_after = Some(millis(value()?)?),
            "--exit-code" => habits.exit_code = value()?.parse()?,
            "--journal" => habits.journal = Some(value()?.into()),
            "--tag" => habits.tag = value()?.clone(),
            option if option.starts_with('-') => return Err(format!("no option {option}").into()),
            path => {
                let typed = path.split_once(':').and_then(|(kind, path)| Some((socket_type(kind)?, path)));
                let (kind, path) = typed.unwrap_or((SockType::Stream, path));
                habits.sockets.push((kind, path.into()));
            }
        }
    }
    Ok(habits)
}

/// A time in milliseconds.
pub fn millis(text: &str) -> Result<Duration> {
    Ok(Duration::from_millis(text.parse()?))
}
