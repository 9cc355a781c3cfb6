//! A test's own home, Nushell and stand-in, all gone with it.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitCode, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value as Json, json};

use crate::fake::{FakeDaemon, Manner};
use crate::folder::Folder;

/// The Nushell that the plugin is built for.
pub const NU_VERSION: &str = "0.115.1";

/// No command of a test takes longer.
const LIMIT: Duration = Duration::from_secs(60);

/// `SCENARIOS_NU`, or the `nu` on PATH, if it is of the right version.
pub fn nushell() -> Option<&'static Path> {
    static NU: OnceLock<Option<PathBuf>> = OnceLock::new();
    let named = || std::env::var_os("SCENARIOS_NU").map(PathBuf::from);
    let is_right = |nu: &PathBuf| {
        let version = Command::new(nu).arg("--version").output();
        version.is_ok_and(|output| output.stdout.trim_ascii() == NU_VERSION.as_bytes())
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = || {
        named().into_iter().chain(std::env::split_paths(&path).map(|folder| folder.join("nu"))).find(is_right)
    };
    NU.get_or_init(found).as_deref()
}

/// Where the plugin lies, and this program beside it as `shimd`.
static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();

/// Places the programs; they are gone with the folder.
pub fn place_programs() -> Folder {
    // Not below /tmp: what is on one file system can be linked instead of copied.
    let folder = Folder::below(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let link = |from: &Path, name: &str| {
        let to = folder.path().join(name);
        std::fs::hard_link(from, &to).or_else(|_| std::fs::copy(from, &to).map(drop)).unwrap();
    };
    link(Path::new(env!("CARGO_BIN_EXE_nu_plugin_proc")), "nu_plugin_proc");
    link(&std::env::current_exe().unwrap(), "shimd");
    PROGRAMS.set(folder.path().into()).unwrap();
    folder
}

/// A home, which is `HOME` and the current folder of its Nushell too.
pub struct World {
    home: Folder,
    daemon: Option<FakeDaemon>,
}

impl World {
    /// With a daemon of good manners.
    pub fn good() -> World {
        Self::with(Manner::Good)
    }

    /// With a daemon of these manners.
    pub fn with(manner: Manner) -> World {
        let home = Folder::new();
        let daemon = Some(FakeDaemon::at(home.path(), manner, fake_pid()));
        World { home, daemon }
    }

    /// Without one; one that is started will `serve` or `fail`.
    pub fn without_daemon(manner: &str) -> World {
        let world = World { home: Folder::new(), daemon: None };
        world.file("manner", manner);
        world
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn path(&self, name: &str) -> String {
        self.home().join(name).display().to_string()
    }

    pub fn file(&self, name: &str, text: &str) {
        std::fs::write(self.home().join(name), text).unwrap();
    }

    /// What the daemon was asked.
    pub fn requests(&self) -> Vec<Json> {
        self.daemon().requests()
    }

    /// What the stand-ins that were started were told: arguments, folder, environment. The last of them.
    pub fn told(&self) -> Json {
        self.all_told().into_iter().next_back().unwrap()
    }

    fn all_told(&self) -> Vec<Json> {
        let told = |entry: std::fs::DirEntry| -> Option<Json> {
            let told = entry.path().extension().is_some_and(|extension| extension == "told");
            told.then(|| serde_json::from_slice(&std::fs::read(entry.path()).unwrap()).unwrap())
        };
        std::fs::read_dir(self.home()).unwrap().filter_map(|entry| told(entry.unwrap())).collect()
    }

    /// Runs a script to its end.
    pub fn nu(&self, script: &str) -> Ran {
        self.start(script).ends_within(LIMIT)
    }

    /// The value of a pipeline.
    pub fn json(&self, pipeline: &str) -> Json {
        let ran = self.nu(&format!("{pipeline} | to json -r"));
        assert!(ran.status.success(), "{pipeline}\n{}", ran.stderr);
        serde_json::from_str(&ran.stdout)
            .unwrap_or_else(|problem| panic!("{pipeline}: {problem}\n{}", ran.stdout))
    }

    /// The error of a pipeline: `msg` and `details`.
    pub fn error(&self, pipeline: &str) -> Json {
        let script = format!(
            "try {{ {pipeline} | ignore; null }} catch {{|e| {{msg: $e.msg, details: $e.details}} }}"
        );
        let error = self.json(&script);
        assert!(!error.is_null(), "{pipeline} did not fail");
        error
    }

    /// The stand-in.
    pub fn daemon(&self) -> &FakeDaemon {
        self.daemon.as_ref().unwrap()
    }

    /// Starts a script.
    pub fn start(&self, script: &str) -> Running {
        let plugin = format!("[{}]", PROGRAMS.get().unwrap().join("nu_plugin_proc").display());
        let child = Command::new(nushell().unwrap())
            .args(["-n", "--no-std-lib", "--plugins", &plugin, "-c", script])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.home())
            .env("SHIMD_HOME", self.home())
            .env("SECRET", "told to nobody")
            .current_dir(self.home())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        Running { child }
    }

    /// Waits for a condition.
    pub fn wait(&self, what: &str, condition: impl Fn() -> bool) {
        let until = Instant::now() + LIMIT;
        while !condition() {
            assert!(Instant::now() < until, "waited for {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let told = self.all_told();
        // A stand-in ends when its home is gone.
        let _ = std::fs::remove_dir_all(self.home());
        let until = Instant::now() + LIMIT;
        for pid in told.iter().filter_map(|told| told["pid"].as_i64()) {
            while lives(pid) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

pub fn lives(pid: i64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// A pid that no process has: beyond the kernel's largest.
fn fake_pid() -> u32 {
    4_194_305
}

/// A Nushell at work. Killed if it is dropped before it has ended.
pub struct Running {
    child: Child,
}

/// How it ended.
pub struct Ran {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Running {
    /// As Ctrl-C does.
    pub fn interrupt(&self) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    }

    /// The processes that it has started.
    pub fn children(&self) -> Vec<i64> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let children = tasks.flat_map(|task| std::fs::read_to_string(task.unwrap().path().join("children")));
        children
            .flat_map(|pids| pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
            .collect()
    }

    pub fn output(&mut self) -> ChildStdout {
        self.child.stdout.take().unwrap()
    }

    pub fn errors(&mut self) -> ChildStderr {
        self.child.stderr.take().unwrap()
    }

    /// Waits for its end. What was taken of its output is not in the result.
    pub fn ends_within(mut self, limit: Duration) -> Ran {
        let stdout = self.child.stdout.take().map(reader);
        let stderr = reader(self.errors());
        let until = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "Nushell did not end within {limit:?}");
            std::thread::sleep(Duration::from_millis(2));
        };
        Ran {
            status,
            stdout: stdout.map(|stdout| stdout.join().unwrap()).unwrap_or_default(),
            stderr: stderr.join().unwrap(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reader(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// What this program does as `shimd run --detach`: it writes down what it was told, and serves or fails. It ends when
/// it is told to, or when its home is gone.
pub fn stand_in() -> ExitCode {
    let home = PathBuf::from(std::env::var_os("SHIMD_HOME").unwrap());
    let variable = |name: &str| std::env::var(name).ok();
    let told = json!({
        "pid": std::process::id(),
        "arguments": std::env::args().skip(1).collect::<Vec<_>>(),
        "folder": std::env::current_dir().unwrap(),
        "SHIMD_HOME": variable("SHIMD_HOME"), "PATH": variable("PATH"), "SECRET": variable("SECRET"),
    });
    std::fs::write(home.join(format!("{}.told", std::process::id())), told.to_string()).unwrap();
    if std::fs::read_to_string(home.join("manner")).unwrap() == "fail" {
        eprintln!("shimd: the store is full");
        return ExitCode::FAILURE;
    }
    let lock = std::fs::File::create(home.join("lock")).unwrap();
    let Ok(_lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else {
        eprintln!("shimd: another daemon has this home");
        return ExitCode::from(3);
    };
    let _daemon = FakeDaemon::at(&home, Manner::Good, std::process::id());
    while home.join("rpc.sock").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    ExitCode::SUCCESS
}
