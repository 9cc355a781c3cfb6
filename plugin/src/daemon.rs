//! The way to `shimd`: one command, one connection; each request with a deadline, ended by Ctrl-C.
//!
//! On every connection the first request is `shim.info`, and a daemon of another version gets no second one. That
//! costs a few hundredths of a millisecond, and nothing is ever asked of a daemon that could take it otherwise.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nu_plugin::EngineInterface;
use nu_protocol::LabeledError;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};
use shimd_api::{Client, ClientError, Follow, Home};

use crate::config::Config;
use crate::error::{self, Blame};
use crate::plugin::VERSION;
use crate::progress::ProgressLine;
use crate::stop::Stop;
use crate::{launch, place};

/// How long a daemon may take to accept a connection.
pub const CONNECT: Duration = Duration::from_secs(2);

/// A connection to the daemon, for one command.
pub struct Daemon<'a> {
    engine: &'a EngineInterface,
    socket: PathBuf,
    client: Client,
    blame: Blame,
    /// How long it may take to answer, or, at long work, to give a sign of life (it does so each second).
    deadline: Duration,
    /// What it says of work that takes long.
    line: ProgressLine,
}

impl<'a> Daemon<'a> {
    /// The daemon that runs, for a command that looks.
    ///
    /// # Errors
    /// `proc::no_daemon` if none does, `proc::version` if it is of another version.
    pub fn running(engine: &'a EngineInterface, blame: Blame) -> Result<Self, LabeledError> {
        let mut daemon = Self::of_any_version(engine, blame)?;
        daemon.check_version()?;
        Ok(daemon)
    }

    /// The daemon that runs, or a new one, for a command that acts.
    ///
    /// # Errors
    /// `proc::no_daemon` if none could be started, or none is to be; `proc::version` if it is of another version.
    pub fn started(
        engine: &'a EngineInterface,
        blame: Blame,
        line: ProgressLine,
    ) -> Result<Self, LabeledError> {
        Self::running_or(engine, blame, line, |config, home, blame, line| match config.autostart {
            true => launch::start(engine, home, blame, line),
            false => Err(error::not_started(&home.control_socket(), blame.head)),
        })
    }

    /// The same for the command whose very purpose is to start one.
    ///
    /// # Errors
    /// `proc::no_daemon` if none could be started, `proc::version` if it is of another version.
    pub fn started_if_need_be(
        engine: &'a EngineInterface,
        blame: Blame,
        line: ProgressLine,
    ) -> Result<Self, LabeledError> {
        Self::running_or(engine, blame, line, |_, home, blame, line| launch::start(engine, home, blame, line))
    }

    fn running_or(
        engine: &'a EngineInterface,
        blame: Blame,
        mut line: ProgressLine,
        absent: impl FnOnce(&Config, &Home, &Blame, &mut ProgressLine) -> Result<Client, LabeledError>,
    ) -> Result<Self, LabeledError> {
        let (config, home) = settings(engine, &blame)?;
        let socket = home.control_socket();
        let client = match Client::connect(&socket, CONNECT.min(config.deadline)) {
            Err(ClientError::NoDaemon { .. }) => absent(&config, &home, &blame, &mut line)?,
            other => other.map_err(|error| error::request(error, &blame))?,
        };
        let mut daemon = Daemon { engine, socket, client, blame, deadline: config.deadline, line };
        daemon.check_version()?;
        Ok(daemon)
    }

    /// The daemon that runs, of whatever version: to say how it is, and to end it.
    ///
    /// # Errors
    /// `proc::no_daemon` if none does.
    pub fn of_any_version(engine: &'a EngineInterface, blame: Blame) -> Result<Self, LabeledError> {
        let (Config { deadline, .. }, home) = settings(engine, &blame)?;
        let socket = home.control_socket();
        let connected = Client::connect(&socket, CONNECT.min(deadline));
        let client = connected.map_err(|error| error::request(error, &blame))?;
        Ok(Daemon { engine, socket, client, blame, deadline, line: ProgressLine::none() })
    }

    /// A new daemon, in the place of the one that runs if one does, whatever version that is.
    ///
    /// # Errors
    /// `proc::failed` says why it was not replaced, `proc::no_daemon` why none came up.
    pub fn replaced(
        engine: &'a EngineInterface,
        blame: Blame,
        mut line: ProgressLine,
    ) -> Result<Self, LabeledError> {
        let (Config { deadline, .. }, home) = settings(engine, &blame)?;
        let socket = home.control_socket();
        let root = Self::root_of_running(engine, &socket);
        let client = launch::replace(engine, &home, &blame, root, &mut line)?;
        let mut daemon = Daemon { engine, socket, client, blame, deadline, line };
        daemon.check_version()?;
        Ok(daemon)
    }

    /// Where the daemon that runs has its sockets; `None` where none runs, or it does not say so.
    fn root_of_running(engine: &EngineInterface, socket: &Path) -> Option<String> {
        let cancelled = || engine.signals().interrupted();
        let mut client = Client::connect_unless(socket, CONNECT, &cancelled).ok()?;
        let info = client.call("shim.info", json!({}), CONNECT, &mut |_| {}, &cancelled).ok()?;
        Some(info.get("socket_root")?.as_str()?.to_owned())
    }

    /// What is said of work that takes long.
    pub fn with_line(self, line: ProgressLine) -> Self {
        Daemon { line, ..self }
    }

    /// The same, for a wait of the command's own.
    pub fn line(&mut self) -> &mut ProgressLine {
        &mut self.line
    }

    /// What the command is about.
    pub fn blame(&self) -> &Blame {
        &self.blame
    }

    /// One request.
    ///
    /// # Errors
    /// What the daemon says, or why it could not be asked.
    pub fn ask<T: DeserializeOwned>(&mut self, method: &str, params: Json) -> Result<T, LabeledError> {
        let (engine, line) = (self.engine, &mut self.line);
        let mut draw = |progress| line.draw(&progress);
        let cancelled = || engine.signals().interrupted();
        let answer = self.client.call_for_text(method, params, self.deadline, &mut draw, &cancelled);
        let answer = answer.map_err(|error| error::request(error, &self.blame))?;
        serde_json::from_str(answer.get())
            .map_err(|problem| error::odd_answer(method, &problem, self.blame.head))
    }

    /// One request that may take long: the daemon tells how far it is, and a terminal shows it.
    ///
    /// # Errors
    /// As [`Daemon::ask`].
    pub fn ask_long<T: DeserializeOwned>(
        &mut self,
        method: &str,
        mut params: Json,
    ) -> Result<T, LabeledError> {
        if let Some(params) = params.as_object_mut() {
            params.insert("progress".into(), Json::Bool(true));
        }
        self.ask(method, params)
    }

    /// One request, for a command that labels its errors in its own way.
    ///
    /// # Errors
    /// What the daemon says, or why it could not be asked.
    pub fn call(&mut self, method: &str, params: Json) -> Result<Json, ClientError> {
        let (engine, line) = (self.engine, &mut self.line);
        self.client.call(method, params, self.deadline, &mut |progress| line.draw(&progress), &|| {
            engine.signals().interrupted()
        })
    }

    /// What it takes to ask this daemon again while the answer of the command is on its way.
    pub fn reach(&self) -> Reach {
        Reach { socket: self.socket.clone(), blame: self.blame.clone(), deadline: self.deadline }
    }

    /// One request that a stream of notifications follows, for which the connection is kept.
    ///
    /// # Errors
    /// As [`Daemon::ask`].
    pub fn follow<T: DeserializeOwned>(
        self,
        method: &str,
        params: Json,
    ) -> Result<(T, Follow), LabeledError> {
        let cancelled = || self.engine.signals().interrupted();
        let (answer, follow) = self
            .client
            .follow(method, params, self.deadline, &cancelled)
            .map_err(|error| error::request(error, &self.blame))?;
        Ok((understood(method, answer, &self.blame)?, follow))
    }

    /// The rows of an answer.
    ///
    /// # Errors
    /// `proc::version`: the daemon speaks another dialect, whatever version it says it is.
    pub fn understand<T: DeserializeOwned>(&self, method: &str, answer: Json) -> Result<T, LabeledError> {
        understood(method, answer, &self.blame)
    }

    fn check_version(&mut self) -> Result<(), LabeledError> {
        let info: Json = self.ask("shim.info", json!({}))?;
        let version = info.get("version").and_then(Json::as_str).unwrap_or("of no known version");
        if same_release(version, VERSION) { Ok(()) } else { Err(error::version(version, self.blame.head)) }
    }
}

/// A daemon for a stream: asked now and then, each time on a connection of its own.
pub struct Reach {
    socket: PathBuf,
    blame: Blame,
    deadline: Duration,
}

impl Reach {
    /// One request.
    ///
    /// # Errors
    /// What the daemon says, or why it could not be asked.
    pub fn call(&self, method: &str, params: &Json, stop: &Stop) -> Result<Json, ClientError> {
        let cancelled = || stop.is_set();
        Client::connect_unless(&self.socket, CONNECT.min(self.deadline), &cancelled)?.call(
            method,
            params.clone(),
            self.deadline,
            &mut |_| {},
            &cancelled,
        )
    }

    /// The rows of an answer.
    ///
    /// # Errors
    /// That of the request; `proc::version`, as [`Daemon::understand`].
    pub fn understand<T: DeserializeOwned>(
        &self,
        method: &str,
        answer: Result<Json, ClientError>,
    ) -> Result<T, LabeledError> {
        understood(method, answer.map_err(|error| error::request(error, &self.blame))?, &self.blame)
    }
}

/// What the user has set, and the home that it and the environment name.
fn settings(engine: &EngineInterface, blame: &Blame) -> Result<(Config, Home), LabeledError> {
    let config = Config::of(engine, blame.head)?;
    let home = place::home(engine, &config).map_err(|error| error::home(&error, blame.head))?;
    Ok((config, home))
}

fn understood<T: DeserializeOwned>(method: &str, answer: Json, blame: &Blame) -> Result<T, LabeledError> {
    serde_json::from_value(answer).map_err(|problem| error::odd_answer(method, &problem, blame.head))
}

/// Whether two versions are of one release, that is, have the same major and minor number.
fn same_release(one: &str, other: &str) -> bool {
    let release = |version: &'_ str| version.splitn(3, '.').take(2).map(str::to_owned).collect::<Vec<_>>();
    release(one) == release(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeDaemon, Folder, Manner, Nu};
    use std::time::Instant;

    /// The code and message that `proc list` ends in.
    fn failure(manner: Manner) -> (String, String) {
        let daemon = FakeDaemon::with(manner);
        let error = Nu::at(&daemon).error("proc list");
        (error.code.unwrap(), error.msg)
    }

    #[test]
    fn a_daemon_that_misbehaves_is_told_apart() {
        let (code, message) = failure(Manner::Hang);
        assert_eq!(code, "proc::timeout");
        assert!(message.contains("did not answer service.list within"), "{message}");
        let (code, message) = failure(Manner::DieMidAnswer);
        assert_eq!(code, "proc::failed");
        assert!(message.contains("hung up before it answered service.list"), "{message}");
        assert_eq!(failure(Manner::Garbage).0, "proc::version");
        let (code, message) = failure(Manner::OddResult);
        assert_eq!(code, "proc::version");
        assert!(message.starts_with("shimd's answer to service.list is not understood: "), "{message}");
    }

    #[test]
    fn another_version_is_asked_for_nothing() {
        let daemon = FakeDaemon::with(Manner::Version("9.9.9"));
        let mut nu = Nu::at(&daemon);
        for source in
            ["proc list", "proc start redis", "proc register {name: a, exec: [a]}", "proc shim start"]
        {
            let error = nu.error(source);
            assert_eq!(error.code.as_deref(), Some("proc::version"), "{source}");
            assert_eq!(error.msg, format!("the shimd that runs is 9.9.9, this plugin is {VERSION}"));
        }
        assert!(daemon.requests().is_empty());
    }

    #[test]
    fn a_sign_of_life_renews_the_deadline() {
        let daemon = FakeDaemon::with(Manner::Slow(8));
        let began = Instant::now();
        Nu::at(&daemon).value("proc restart redis").unwrap();
        assert!(began.elapsed() > Config::default().deadline, "it took longer than a silent daemon may");
    }

    #[test]
    fn without_a_daemon_looking_is_an_error() {
        let folder = Folder::new();
        let mut nu = Nu::alone(&folder);
        for source in
            ["proc list", "proc status redis", "proc socket-check", "proc shim status", "proc shim stop"]
        {
            let error = nu.error(source);
            assert_eq!(error.code.as_deref(), Some("proc::no_daemon"), "{source}");
            assert!(error.help.unwrap().contains("proc shim start"));
        }
        // The socket file of a daemon that is dead.
        drop(std::os::unix::net::UnixListener::bind(folder.path().join("rpc.sock")).unwrap());
        assert_eq!(nu.error("proc list").code.as_deref(), Some("proc::no_daemon"));
    }

    #[test]
    fn a_relative_home_is_refused() {
        let folder = Folder::new();
        let mut nu = Nu::alone(&folder);
        nu.set("SHIMD_HOME", "here");
        let error = nu.error("proc list");
        assert_eq!(error.code.as_deref(), Some("proc::bad_home"));
        assert!(error.msg.starts_with("SHIMD_HOME is a relative path (here)"), "{}", error.msg);
    }

    #[test]
    fn a_program_that_is_not_there_cannot_be_started() {
        let folder = Folder::new();
        let mut nu = Nu::alone(&folder);
        nu.set("PATH", "/nonexistent");
        let error = nu.error("proc start redis");
        assert_eq!(error.code.as_deref(), Some("proc::no_daemon"));
        assert!(error.msg.contains("none is found to start"), "{}", error.msg);
    }

    #[test]
    fn a_release_is_major_and_minor() {
        assert!(same_release("0.1.0", "0.1.7"));
        assert!(same_release("1.2.3-rc.1", "1.2.0"));
        assert!(!same_release("0.2.0", "0.1.0"));
        assert!(!same_release("1.1.0", "0.1.0"));
        assert!(!same_release("of no known version", "0.1.0"));
    }
}
