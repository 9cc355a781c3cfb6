//! What the tests of the edge share: folders, plans, and guards that leave no process behind.
#![allow(dead_code)] // each test file uses its own part

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use shimd::sys::identity::Identity;
use shimd::sys::spawn::{ExecPlan, Pending, SpawnError, base_env, begin_with};
use shimd::sys::template::Template;

/// The longest that anything here may take on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub fn shimd() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_shimd"))
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Polls `condition` until it gives something.
#[track_caller]
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A folder of one test, gone with it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("shimd-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn file(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    }

    /// A file open for append, as a service's log is.
    pub fn log(&self, name: &str) -> File {
        File::options().append(true).create(true).open(self.0.join(name)).unwrap()
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    /// Waits until the file holds a whole line, and gives its lines.
    #[track_caller]
    pub fn lines(&self, name: &str, at_least: usize) -> Vec<String> {
        until(&format!("{at_least} lines in {name}"), || {
            let text = self.read(name);
            let whole = text.rsplit_once('\n').map(|(whole, _)| whole).filter(|w| !w.is_empty());
            whole.map(|w| w.lines().map(str::to_owned).collect::<Vec<_>>()).filter(|l| l.len() >= at_least)
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A plan for `argv` with the environment a daemon would give.
pub fn plan(argv: &[&str]) -> ExecPlan {
    let env = base_env(&BTreeMap::new(), None, "test/service/1", None);
    ExecPlan { argv: argv.iter().map(ToString::to_string).collect(), env, ..ExecPlan::default() }
}

/// A plan for a shell script, with this mark.
pub fn script(mark: &str, text: &str) -> ExecPlan {
    ExecPlan { env: base_env(&BTreeMap::new(), None, mark, None), ..plan(&["/bin/sh", "-c", text]) }
}

pub fn begin(folder: &Folder, plan: &ExecPlan) -> Result<Pending, SpawnError> {
    begin_with(shimd(), template(), plan, &folder.log("out"), &folder.log("err"))
}

/// A template in the tests that are named for it; else none.
pub fn template() -> &'static Template {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let own = std::env::current_exe().unwrap();
        match own.to_string_lossy().contains("by_template") {
            true => Template::start_with(shimd()).unwrap(),
            false => Template::none(),
        }
    })
}

/// Spawns and lets go.
pub async fn run(folder: &Folder, plan: &ExecPlan) -> Result<Service, SpawnError> {
    let mut pending = begin(folder, plan)?;
    let identity = pending.ready().await?;
    pending.go().await?;
    Ok(Service(identity))
}

/// A process of the test's own: killed and reaped at the end.
pub struct Service(pub Identity);

impl Service {
    pub fn pid(&self) -> i32 {
        self.0.pid
    }

    /// Its exit, as its parent.
    #[track_caller]
    pub fn wait(&self) -> WaitStatus {
        until("the exit of a service", || {
            match waitpid(Pid::from_raw(self.pid()), Some(WaitPidFlag::WNOHANG)).unwrap() {
                WaitStatus::StillAlive => None,
                status => Some(status),
            }
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Ok(Some(process)) = self.0.still_alive() {
            let _ = process.signal(libc::SIGKILL);
        }
        let _ = waitpid(Pid::from_raw(self.pid()), None);
    }
}
