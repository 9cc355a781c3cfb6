//! Whether a spec's program is there and may be executed: told when the spec is given, not at its first start.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use shimd_api::spec::{Spec, SpecError};

/// Looks the program up as `execvp` will: a name with a slash below `cwd`, another along `PATH` (the spec's, else
/// the daemon's).
pub fn check(spec: &Spec, root: &Path) -> Result<(), SpecError> {
    let argv = spec.argv(root, 0)?;
    let Some(program) = argv.first() else { return Ok(()) };
    let bad =
        |problem: String, fix: &str| Err(SpecError { field: "exec[0]".into(), problem, fix: fix.to_owned() });
    if program.contains('/') {
        let path = spec.cwd.as_deref().unwrap_or(Path::new("/")).join(program);
        return match executable(&path) {
            Ok(()) => Ok(()),
            Err(why) => bad(format!("{} {why}", path.display()), "give the path of an executable file"),
        };
    }
    let search =
        spec.env.get("PATH").map(Into::into).or_else(|| std::env::var_os("PATH")).unwrap_or_default();
    let candidates: Vec<PathBuf> = std::env::split_paths(&search).map(|d| d.join(program)).collect();
    if candidates.iter().any(|c| executable(c).is_ok()) {
        return Ok(());
    }
    match candidates.iter().find(|c| c.is_file()) {
        Some(found) => {
            bad(format!("{} is not executable", found.display()), "chmod +x it, or give another program")
        }
        None => bad(
            format!("no program {program} is found along PATH ({})", search.to_string_lossy()),
            "install it, or give its absolute path",
        ),
    }
}

fn executable(path: &Path) -> Result<(), String> {
    let meta = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => "does not exist".to_owned(),
        _ => format!("cannot be looked at: {e}"),
    })?;
    if !meta.is_file() {
        return Err("is not a file".into());
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err("is not executable".into());
    }
    Ok(())
}
