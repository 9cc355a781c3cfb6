//! Records of real servers (`tests/servers/*.json`): how each is installed, started and questioned.
//!
//! Placeholders: `{dir}` the server's folder, `{venv}` and `{npm}` where `cargo xtask` installs from PyPI and npm, `{port}`
//! a free TCP port. A program is looked up in `path` and the system's folders, so that a spec names it absolutely.

use crate::command::{Ran, run};
use crate::fault::Context;
use crate::{Fault, Result, World, bins};
use nix::unistd::{User, chown, geteuid};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long set-up commands and clients may take.
const SETUP: Duration = Duration::from_secs(90);
const CLIENT: Duration = Duration::from_secs(10);

/// One server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its name, and the service's.
    pub name: String,
    /// What is special about it.
    pub about: String,
    /// The packages that bring it and its client.
    pub packages: Packages,
    /// Programs that must be there beside the server's own.
    #[serde(default)]
    pub programs: Vec<String>,
    /// Whether it runs only for root.
    #[serde(default)]
    pub root: bool,
    /// The user as whom it is to run.
    pub user: Option<String>,
    /// Folders below `{dir}` to make, and their owners.
    #[serde(default)]
    pub folders: BTreeMap<String, Option<String>>,
    /// Files below `{dir}` to write, as lines.
    #[serde(default)]
    pub files: BTreeMap<String, Vec<String>>,
    /// Commands to run once, as the user.
    #[serde(default)]
    pub setup: Vec<Vec<String>>,
    /// The server's command line.
    pub argv: Vec<String>,
    /// Its environment beside PATH, HOME and LANG.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Further folders of programs; `*` stands for any name.
    #[serde(default)]
    pub path: Vec<String>,
    /// What it listens on.
    pub sockets: Vec<Socket>,
    /// Who questions it.
    pub client: Client,
    /// How long its start may take, in seconds.
    #[serde(default = "fifteen")]
    pub start_timeout: u64,
    /// Why a lost file of its sockets cannot be linked back; that of any other server is.
    pub not_relinked: Option<String>,
    /// Why it does not outlive the daemon; any other server does.
    pub not_adopted: Option<String>,
}

/// Packages by registry.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// Debian's.
    #[serde(default)]
    pub debian: Vec<String>,
    /// PyPI's.
    #[serde(default)]
    pub pip: Vec<String>,
    /// npm's.
    #[serde(default)]
    pub npm: Vec<String>,
}

/// A socket of the server: a path below `{dir}` and a type.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Socket {
    /// Below `{dir}`.
    pub path: String,
    /// `stream`, `dgram`, `seqpacket`.
    #[serde(rename = "type", default = "stream")]
    pub kind: String,
}

/// A real client and what it prints when the server really answered.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Its command line.
    pub argv: Vec<String>,
    /// Texts that its output must hold, in this order.
    pub expect: Vec<String>,
}

fn fifteen() -> u64 {
    15
}

fn stream() -> String {
    "stream".to_owned()
}

/// A server whose folder is ready.
pub struct Prepared {
    /// The spec to register.
    pub spec: Value,
    /// The absolute paths of its sockets.
    pub sockets: Vec<PathBuf>,
    client: Vec<String>,
    expect: Vec<String>,
    environment: BTreeMap<String, String>,
    folder: PathBuf,
}

impl Record {
    /// All records, by name.
    pub fn all() -> Result<Vec<Record>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers");
        let mut records = Vec::new();
        for entry in fs::read_dir(&folder).context(folder.display())? {
            let path = entry?.path();
            let text = fs::read_to_string(&path)?;
            let record: Record = serde_json::from_str(&text).context(path.display())?;
            records.push(record);
        }
        records.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(records)
    }

    /// The record of one server.
    pub fn named(name: &str) -> Result<Record> {
        let found = Record::all()?.into_iter().find(|record| record.name == name);
        found.context(format!("no record of a server {name}"))
    }

    /// Whether its lost sockets cannot be linked back, or it does not outlive the daemon.
    pub fn is_an_exception(&self) -> bool {
        self.not_relinked.is_some() || self.not_adopted.is_some()
    }

    /// Why it cannot run here; `None` when it can.
    pub fn lacking(&self) -> Option<String> {
        if (self.root || self.user.is_some()) && !geteuid().is_root() {
            return Some("needs root".to_owned());
        }
        let programs = [self.argv.first(), self.client.argv.first()];
        let scripts = self.argv.iter().filter(|part| part.starts_with("{npm}"));
        let programs = programs.into_iter().flatten().chain(&self.programs).chain(scripts);
        let foreign = programs.filter(|program| !program.starts_with("{dir}"));
        let missing =
            foreign.map(|program| self.place(program, &[])).find(|program| self.find(program).is_none());
        if let Some(program) = missing {
            return Some(format!("{program} is not installed"));
        }
        let users = self.user.iter().chain(self.folders.values().flatten());
        users
            .into_iter()
            .find(|user| !matches!(User::from_name(user), Ok(Some(_))))
            .map(|user| format!("no user {user}"))
    }

    /// Makes its folder in the world, writes its files, runs its set-up.
    pub fn prepare(&self, world: &World) -> Result<Prepared> {
        let folder = world.file(&self.name);
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let dir = folder.display().to_string();
        let values = [("{dir}", dir.as_str()), ("{port}", port.as_str())];
        let place = |text: &String| self.place(text, &values);
        self.make_folder(&folder, &self.user)?;
        for (name, owner) in &self.folders {
            self.make_folder(&folder.join(name), owner)?;
        }
        for (name, lines) in &self.files {
            let text = lines.iter().map(|line| place(line) + "\n").collect::<String>();
            let path = folder.join(name);
            fs::write(&path, &text).context(path.display())?;
            let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            own(&path, &self.user)?;
        }
        let mut environment = BTreeMap::from([
            ("PATH".to_owned(), self.search_path()),
            ("HOME".to_owned(), dir.clone()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ]);
        environment.extend(self.env.iter().map(|(name, value)| (name.clone(), place(value))));
        for line in &self.setup {
            let line: Vec<String> = line.iter().map(place).collect();
            let mut command = self.command(&line, &environment, &folder)?;
            if let Some(user) = find_user(&self.user)? {
                command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
            }
            world.note(run(command, SETUP)?.success().context("set-up")?);
        }
        let mut exec: Vec<String> = self.argv.iter().map(place).collect();
        if let Some(program) = exec.first_mut() {
            *program =
                self.find(program).context(format!("{program} is not installed"))?.display().to_string();
        }
        let sockets: Vec<PathBuf> = self.sockets.iter().map(|socket| folder.join(&socket.path)).collect();
        let declared: Vec<Value> = sockets
            .iter()
            .zip(&self.sockets)
            .map(|(path, socket)| json!({"path": path, "type": socket.kind}))
            .collect();
        let mut spec = json!({
            "name": self.name,
            "exec": exec,
            "cwd": folder,
            "env": environment,
            "sockets": declared,
            "ready": {"timeout": format!("{}sec", self.start_timeout)},
            "stop": {"timeout": "12sec"},
            "restart": {"policy": "never"},
            "on_missing": "report",
        });
        if let (Some(user), Some(spec)) = (&self.user, spec.as_object_mut()) {
            spec.insert("user".to_owned(), json!(user));
        }
        let mut client: Vec<String> = self.client.argv.iter().map(place).collect();
        if let Some(program) = client.first_mut() {
            *program =
                self.find(program).context(format!("{program} is not installed"))?.display().to_string();
        }
        Ok(Prepared { spec, sockets, client, expect: self.client.expect.clone(), environment, folder })
    }

    fn command(
        &self,
        line: &[String],
        environment: &BTreeMap<String, String>,
        folder: &Path,
    ) -> Result<Command> {
        let (program, arguments) = line.split_first().context("an empty command line")?;
        let program = self.find(program).context(format!("{program} is not installed"))?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(environment).current_dir(folder);
        Ok(command)
    }

    fn make_folder(&self, path: &Path, owner: &Option<String>) -> Result {
        fs::create_dir_all(path).context(path.display())?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        own(path, owner)
    }

    fn place(&self, text: &str, values: &[(&str, &str)]) -> String {
        let installed = installed();
        let mut text = text
            .replace("{venv}", &installed.join("venv/bin").display().to_string())
            .replace("{npm}", &installed.join("npm/node_modules").display().to_string());
        for (name, value) in values {
            text = text.replace(name, value);
        }
        text
    }

    fn find(&self, program: &str) -> Option<PathBuf> {
        if program.contains('/') {
            return Path::new(program).is_file().then(|| program.into());
        }
        self.folders_of_programs().into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
    }

    fn search_path(&self) -> String {
        let folders = self.folders_of_programs();
        folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":")
    }

    /// `path` with each `*` filled in, the newest first, then the system's folders.
    fn folders_of_programs(&self) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        for pattern in &self.path {
            let Some((before, after)) = pattern.split_once("/*/") else {
                folders.push(pattern.into());
                continue;
            };
            let names = fs::read_dir(before).into_iter().flatten().flatten();
            let mut found: Vec<PathBuf> =
                names.map(|entry| entry.path().join(after)).filter(|path| path.is_dir()).collect();
            found.sort();
            folders.extend(found.into_iter().rev());
        }
        folders.extend(std::env::split_paths(bins::SYSTEM_PATH));
        folders
    }
}

impl Prepared {
    /// Runs the client until the server answers, for at most ten seconds.
    pub fn answers(&self, world: &World) -> Result {
        let start = Instant::now();
        loop {
            let ran = self.ask()?;
            let mut rest = ran.stdout.as_str();
            let answered = self.expect.iter().all(|part| match rest.split_once(part.as_str()) {
                Some((_, after)) => {
                    rest = after;
                    true
                }
                None => false,
            });
            if answered {
                world.note(&ran);
                return Ok(());
            }
            if start.elapsed() > CLIENT {
                return Err(Fault(format!("the client got no answer with {:?} in it:\n{ran}", self.expect)));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs the client once.
    pub fn ask(&self) -> Result<Ran> {
        let (program, arguments) = self.client.split_first().context("no client")?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(&self.environment).current_dir(&self.folder);
        run(command, CLIENT)
    }
}

/// Where `cargo xtask` installs what is not Debian's; `SCENARIOS_SERVERS` names another place.
pub fn installed() -> PathBuf {
    let named = std::env::var_os("SCENARIOS_SERVERS").map(PathBuf::from);
    named.or_else(|| Some(bins::target()?.join("servers"))).unwrap_or_default()
}

fn find_user(name: &Option<String>) -> Result<Option<User>> {
    match name {
        Some(name) => Ok(Some(User::from_name(name)?.context(format!("no user {name}"))?)),
        None => Ok(None),
    }
}

fn own(path: &Path, owner: &Option<String>) -> Result {
    if let Some(user) = find_user(owner)? {
        chown(path, Some(user.uid), Some(user.gid)).context(path.display())?;
    }
    Ok(())
}
