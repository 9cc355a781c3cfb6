//! Where the binaries under test are: named by `cargo xtask test`, else beside this test's own.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The Nushell that the plugin is built for.
pub const NU_VERSION: &str = "0.115.1";

/// One that it is not built for.
pub const OTHER_NU: &str = "0.114.1";

/// `SCENARIOS_NU`, what `cargo xtask` put into the target folder, or the one on PATH, if its version is [`NU_VERSION`].
pub fn nu() -> Option<&'static Path> {
    // Only what was found is remembered: where none was, `cargo xtask` fetches one and asks again.
    static NU: OnceLock<PathBuf> = OnceLock::new();
    if NU.get().is_none() {
        let named = env::var_os("SCENARIOS_NU").map(PathBuf::from);
        let fetched = target().map(|target| nu_in(&target));
        let found = named.into_iter().chain(fetched).chain(on_path("nu")).find(|nu| is_nu(nu))?;
        NU.get_or_init(|| found);
    }
    NU.get().map(PathBuf::as_path)
}

/// Where `cargo xtask` puts a Nushell of its own.
pub fn nu_in(target: &Path) -> PathBuf {
    target.join("nu/bin/nu")
}

/// Whether this is a Nushell of the right version.
pub fn is_nu(program: &Path) -> bool {
    let version = Command::new(program).arg("--version").output();
    version.is_ok_and(|output| output.stdout.trim_ascii() == NU_VERSION.as_bytes())
}

/// A binary of the workspace: `shimd`, `nu_plugin_proc`, `unixd`. `SCENARIOS_BIN` names their folder.
pub fn built(name: &str) -> Option<PathBuf> {
    let named = env::var_os("SCENARIOS_BIN").map(PathBuf::from);
    let program = named.or_else(profile_folder)?.join(name);
    program.is_file().then_some(program)
}

/// Cargo's target folder. `CARGO_TARGET_DIR` or the path of this executable tell.
pub fn target() -> Option<PathBuf> {
    profile_folder()?.parent().map(Path::to_owned)
}

/// Where `cargo xtask` puts cargo's subcommands that it needs.
pub fn tools() -> Option<PathBuf> {
    Some(target()?.join("tools/bin"))
}

/// The folders in which a system has its programs, root's among them.
pub const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program in the system's folders, or on this process's own PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let own = env::var_os("PATH").unwrap_or_default();
    env::split_paths(SYSTEM_PATH)
        .chain(env::split_paths(&own))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// `target/debug` of `target/debug/xtask` and of `target/debug/deps/scenarios-…`.
fn profile_folder() -> Option<PathBuf> {
    let own = env::current_exe().ok()?;
    let folder = own.parent()?;
    if folder.ends_with("deps") { folder.parent().map(Path::to_owned) } else { Some(folder.to_owned()) }
}
