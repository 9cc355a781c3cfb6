//! Where the user is: environment and current folder, asked from the engine on every call, because the
//! plugin's own are frozen from when it was spawned.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use nix::unistd::Uid;
use nu_plugin::EngineInterface;
use nu_protocol::Value;
use shimd_api::{Home, PathsError};

use crate::config::Config;

/// The home of the daemon that the user's environment names, or else the user's settings do.
///
/// # Errors
/// See [`Home::from_env`].
pub fn home(engine: &EngineInterface, config: &Config) -> Result<Home, PathsError> {
    let get = |name: &str| match variable(engine, name).filter(|value| !value.is_empty()) {
        None if name == "SHIMD_HOME" => config.home.clone().map(PathBuf::into_os_string),
        value => value,
    };
    Home::from_env(&get, Uid::effective().as_raw())
}

/// One variable of the user's environment, as a child process would get it.
pub fn variable(engine: &EngineInterface, name: &str) -> Option<OsString> {
    engine.get_env_var(name).ok().flatten().and_then(|value| exported(&value))
}

/// The user's whole environment, as a child process would get it.
pub fn environment(engine: &EngineInterface) -> Vec<(String, OsString)> {
    let variables = engine.get_env_vars().unwrap_or_default();
    variables.into_iter().filter_map(|(name, value)| Some((name, exported(&value)?))).collect()
}

/// Text as it is; a list of texts (`PATH`) joined by `:`; what a process cannot be given is left out.
fn exported(value: &Value) -> Option<OsString> {
    match value {
        Value::String { val, .. } | Value::Glob { val, .. } => Some(val.into()),
        Value::List { vals, .. } if !vals.is_empty() => {
            let parts: Option<Vec<&str>> = vals.iter().map(|part| part.as_str().ok()).collect();
            parts.map(|parts| parts.join(":").into())
        }
        _ => None,
    }
}

/// A path as the user means it: `~` is their home, and a relative path starts in their current folder.
/// Only `.` and empty steps are taken out: `..` after a link is for the kernel to follow.
pub fn path(engine: &EngineInterface, given: &str) -> PathBuf {
    let folder = || engine.get_current_dir().unwrap_or_else(|_| "/".into()).into();
    place_path(given, || variable(engine, "HOME").map(PathBuf::from), folder)
}

fn place_path(given: &str, home: impl Fn() -> Option<PathBuf>, folder: impl Fn() -> PathBuf) -> PathBuf {
    let given = Path::new(given);
    let placed = match given.strip_prefix("~") {
        Ok(rest) => home().map(|home| home.join(rest)),
        Err(_) => None,
    };
    let placed = placed.unwrap_or_else(|| folder().join(given));
    placed.components().filter(|step| *step != Component::CurDir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_the_users() {
        let place = |given| place_path(given, || Some("/home/ann".into()), || "/srv/app".into());
        assert_eq!(place("./run/a.sock"), Path::new("/srv/app/run/a.sock"));
        assert_eq!(place("../a.sock"), Path::new("/srv/app/../a.sock"));
        assert_eq!(place("~/a.sock"), Path::new("/home/ann/a.sock"));
        assert_eq!(place("~"), Path::new("/home/ann"));
        assert_eq!(place("~bob/a.sock"), Path::new("/srv/app/~bob/a.sock"));
        assert_eq!(place("/run/./a//b.sock"), Path::new("/run/a/b.sock"));
    }

    #[test]
    fn only_what_a_process_can_be_given_is_exported() {
        let list = Value::test_list(vec![Value::test_string("/bin"), Value::test_string("/usr/bin")]);
        assert_eq!(exported(&list), Some("/bin:/usr/bin".into()));
        assert_eq!(exported(&Value::test_string("x")), Some("x".into()));
        assert_eq!(exported(&Value::test_int(1)), None);
        assert_eq!(exported(&Value::test_list(vec![Value::test_int(1)])), None);
    }
}
