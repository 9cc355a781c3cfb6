//! A scenario's world: a folder with a home, a socket root and a clean environment, and the processes in it.

use crate::fault::Context;
use crate::relinking::Known;
use crate::{Fault, Result, bins, mounts, processes};
use nix::unistd::{User, chown, geteuid};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long after its daemon's end the last process of a world may live.
const SETTLES: Duration = Duration::from_secs(3);

/// How much of each log a failed scenario shows.
const TAIL: usize = 6000;

/// The worlds whose processes have not been ended yet.
static LIVING: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// One scenario's folder and processes.
///
/// `h` is SHIMD_HOME, `s` HERO_SOCKET_DIR, `d` HERO_STATE_DIR, `u` the user's HOME, `w` room for the scenario's own files. The folder's path
/// is short, since a socket's path holds 107 bytes.
pub struct World {
    name: String,
    folder: PathBuf,
    user: Option<User>,
    bins: PathBuf,
    pub(crate) daemons: Mutex<Vec<Child>>,
    transcript: Mutex<String>,
    /// What a world knows whose services relink: see `relinking`.
    pub(crate) relinking: Mutex<Option<Known>>,
}

impl World {
    /// Makes the folder. With `user` it is that user's, and every command of this world runs as that user.
    pub fn new(name: &str, user: Option<User>) -> Result<World> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let temp = std::env::temp_dir();
        let temp = if temp.as_os_str().len() > 24 { PathBuf::from("/tmp") } else { temp };
        let folder = temp.canonicalize()?.join(format!("shim-{}-{count}", std::process::id()));
        fs::create_dir(&folder).context(folder.display())?;
        locked(&LIVING).insert(folder.clone());
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let mut world = World {
            name: name.to_owned(),
            bins: PathBuf::new(),
            folder,
            user,
            daemons: Mutex::new(Vec::new()),
            transcript: Mutex::new(String::new()),
            relinking: Mutex::new(None),
        };
        world.give(&world.folder)?;
        for part in ["d", "s", "u", "w", "x"] {
            let part = world.folder.join(part);
            fs::create_dir(&part)?;
            fs::set_permissions(
                &part,
                fs::Permissions::from_mode(if part.ends_with("x") { 0o700 } else { 0o755 }),
            )?;
            world.give(&part)?;
        }
        world.bins = world.place_bins()?;
        Ok(world)
    }

    /// The scenario's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The world's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// SHIMD_HOME. The daemon makes it.
    pub fn home(&self) -> PathBuf {
        self.folder.join("h")
    }

    /// HERO_SOCKET_DIR.
    pub fn sockets(&self) -> PathBuf {
        self.folder.join("s")
    }

    /// The path of a socket declared by a basename.
    pub fn socket(&self, service: &str, name: &str) -> PathBuf {
        self.sockets().join(service).join(name)
    }

    /// A path for a file of the scenario's own.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join("w").join(name)
    }

    /// The control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.home().join("rpc.sock")
    }

    /// A binary under test.
    pub fn bin(&self, name: &str) -> PathBuf {
        self.bins.join(name)
    }

    /// The fixture server's path, as text for an argv.
    pub fn unixd(&self) -> String {
        self.bin("unixd").display().to_string()
    }

    /// The user as whom this world's commands run, where it is not the test's own.
    pub fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// The environment of every command: nothing of the caller's own reaches the world.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let text = |path: PathBuf| path.display().to_string();
        vec![
            ("PATH", bins::SYSTEM_PATH.to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("TERM", "dumb".to_owned()),
            ("HOME", text(self.folder.join("u"))),
            ("XDG_RUNTIME_DIR", text(self.folder.join("x"))),
            ("SHIMD_HOME", text(self.home())),
            ("HERO_SOCKET_DIR", text(self.sockets())),
            ("HERO_STATE_DIR", text(self.folder.join("d"))),
            ("RUST_BACKTRACE", "1".to_owned()),
        ]
    }

    /// A command of this world: its environment, its user, its folder.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env_clear().envs(self.environment()).current_dir(self.folder.join("w"));
        if let Some(user) = &self.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    /// Writes a file of the scenario's own.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.file(name);
        fs::write(&path, text).context(path.display())?;
        self.give(&path)?;
        Ok(path)
    }

    /// Gives a path to the world's user.
    pub fn give(&self, path: &Path) -> Result {
        if let Some(user) = &self.user {
            chown(path, Some(user.uid), Some(user.gid)).context(path.display())?;
        }
        Ok(())
    }

    /// Adds to what a failed scenario shows. What was just said is not said again: a wait asks the same many times.
    pub fn note(&self, words: impl std::fmt::Display) {
        let mut transcript = locked(&self.transcript);
        let mut words = words.to_string();
        if !words.ends_with('\n') {
            words.push('\n');
        }
        if !transcript.ends_with(&words) {
            transcript.push_str(&words);
        }
    }

    /// The living processes of this world.
    pub fn processes(&self) -> Vec<processes::Process> {
        processes::of_folder(&self.folder)
    }

    /// Ends the daemon with its services, then holds that no process of the world is left; kills what is.
    pub fn end(&self) -> Result {
        let daemon = self.end_daemon();
        let start = std::time::Instant::now();
        let mut left = self.processes();
        while !left.is_empty() && start.elapsed() < SETTLES {
            std::thread::sleep(Duration::from_millis(20));
            left = self.processes();
        }
        processes::kill_all(&self.folder);
        mounts::unmount_below(&self.folder);
        locked(&LIVING).remove(&self.folder);
        daemon?;
        if left.is_empty() {
            return Ok(());
        }
        let left: Vec<String> = left.iter().map(|process| format!("  {process}")).collect();
        Err(Fault(format!("left alive at the end of the scenario (killed now):\n{}", left.join("\n"))))
    }

    /// Removes the folder of a world that has ended.
    pub fn remove(&self) {
        // What cannot be removed is of no harm, and no reason to fail.
        let _ = fs::remove_dir_all(&self.folder);
    }

    /// The folders of the worlds that have not ended.
    pub fn living() -> Vec<PathBuf> {
        locked(&LIVING).iter().cloned().collect()
    }

    /// All that was run, and the ends of all logs.
    pub fn story(&self) -> String {
        let mut story = format!("--- {} kept in {}\n", self.name, self.folder.display());
        story.push_str(&locked(&self.transcript));
        let mut logs = vec![self.folder.join("daemon.out"), self.home().join("shimd.log")];
        if let Ok(entries) = fs::read_dir(self.home().join("logs")) {
            logs.extend(entries.flatten().map(|entry| entry.path()));
        }
        for log in logs {
            let bytes = fs::read(&log).unwrap_or_default();
            let tail = bytes.get(bytes.len().saturating_sub(TAIL)..).unwrap_or_default();
            if !tail.is_empty() {
                story.push_str(&format!(
                    "--- {}\n{}\n",
                    log.display(),
                    String::from_utf8_lossy(tail).trim_end()
                ));
            }
        }
        story
    }

    /// The folder of the binaries under test. Another user may not reach the build's folder: it gets links or copies.
    fn place_bins(&self) -> Result<PathBuf> {
        let built = |name| bins::built(name).and_then(|bin| bin.parent().map(Path::to_owned));
        let place = built("shimd").or_else(|| built("unixd")).unwrap_or_default();
        if self.user.is_none() || !geteuid().is_root() {
            return Ok(place);
        }
        let folder = self.folder.join("b");
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let own = ["shimd", "nu_plugin_proc", "unixd"].into_iter().filter_map(bins::built);
        for program in own.chain(bins::nu().map(Path::to_owned)) {
            let name = program.file_name().context(program.display())?;
            let placed = folder.join(name);
            if fs::hard_link(&program, &placed).is_err() {
                fs::copy(&program, &placed).context(program.display())?;
            }
        }
        Ok(folder)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Only a world whose end was never reached still has processes; `end` says what it finds, this cannot.
        if locked(&LIVING).remove(&self.folder) {
            processes::kill_all(&self.folder);
            mounts::unmount_below(&self.folder);
        }
    }
}

/// A lock whose holder panicked is as good as any other here.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
