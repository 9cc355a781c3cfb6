//! `cargo xtask install`, `cargo xtask uninstall`: for the Nushell on PATH, of the user who runs this.
//!
//! | what | where |
//! | --- | --- |
//! | `shimd`, `nu_plugin_proc` | `PREFIX/bin`: `--prefix`, else `$CARGO_HOME`, else `~/.cargo`, as `cargo install` has it |
//! | `lib.nu` and the service modules | `scripts/shim` in Nushell's configuration folder, which it searches: `use shim/lib.nu *` |
//! | the man pages | `PREFIX/share/man`, where man(1) looks for programs of `PREFIX/bin` |
//! | the plugin, in Nushell's own register | `plugin add`; `plugin rm` |
//!
//! A file is put in place whole, by one rename: a daemon that runs from it goes on with the old one.

use crate::build::{cargo, release, root, target};
use crate::man;
use crate::step::step;
use scenarios::fault::Context;
use scenarios::{Fault, Result, bins};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What is installed.
pub const PROGRAMS: [&str; 2] = ["shimd", "nu_plugin_proc"];

/// What was asked for.
struct Asked {
    prefix: PathBuf,
    /// Where built programs lie already; `None` builds them.
    from: Option<PathBuf>,
}

impl Asked {
    fn read(arguments: &[String]) -> Result<Asked> {
        let (mut prefix, mut from) = (None, None);
        for pair in arguments.chunks(2) {
            match pair {
                [option, value] if option == "--prefix" => prefix = Some(std::path::absolute(value)?),
                [option, value] if option == "--from" => from = Some(PathBuf::from(value)),
                _ => return Err(Fault(format!("{}: there are --prefix DIR and --from DIR", pair.join(" ")))),
            }
        }
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"));
        let prefix = prefix.or_else(|| std::env::var_os("CARGO_HOME").map(PathBuf::from)).or_else(home);
        Ok(Asked { prefix: prefix.context("HOME is not set: give --prefix DIR")?, from })
    }

    fn programs(&self) -> impl Iterator<Item = PathBuf> {
        PROGRAMS.into_iter().map(|name| self.prefix.join("bin").join(name))
    }

    /// Where a man page goes: `shimd.8` into `man8`.
    fn page(&self, page: &Path) -> Result<PathBuf> {
        let name = page.file_name().context("no file name")?;
        let section = page.extension().context("no section")?.to_string_lossy().into_owned();
        Ok(self.prefix.join("share/man").join(format!("man{section}")).join(name))
    }
}

/// Nushell of the user.
struct Nu(PathBuf);

impl Nu {
    fn find() -> Result<Nu> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let get = format!(
            "npm install -g nushell@{0}, or cargo install nu --version {0} --locked",
            bins::NU_VERSION
        );
        let found = std::env::split_paths(&path).map(|folder| folder.join("nu")).find(|nu| nu.is_file());
        let nu = found.context(format!("no nu is on PATH: {get}"))?;
        let output = Command::new(&nu).arg("--version").output().context(nu.display())?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let release = |version: &str| version.rsplit_once('.').map(|(release, _)| release.to_owned());
        if release(&version) == release(bins::NU_VERSION) {
            return Ok(Nu(nu));
        }
        let wanted = bins::NU_VERSION;
        Err(Fault(format!("{} is Nushell {version}, the plugin is for {wanted}: {get}", nu.display())))
    }

    fn run(&self, script: &str) -> Result<String> {
        let output = Command::new(&self.0).args(["-c", script]).output().context(self.0.display())?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Err(Fault(format!("nu -c '{script}': {said}")))
    }

    /// Where the modules go.
    fn modules(&self) -> Result<PathBuf> {
        Ok(PathBuf::from(self.run("print $nu.default-config-dir")?).join("scripts/shim"))
    }
}

/// `[--prefix DIR] [--from DIR]`.
pub fn install(arguments: &[String]) -> Result<ExitCode> {
    let asked = Asked::read(arguments)?;
    let nu = Nu::find()?;
    let from = match &asked.from {
        Some(from) => from.clone(),
        None => release()?,
    };
    for (name, to) in PROGRAMS.into_iter().zip(asked.programs()) {
        put(&from.join(name), &to)?;
        println!("installed {}", to.display());
    }
    for page in man::pages(&man::folder()?)? {
        put(&page, &asked.page(&page)?)?;
    }
    println!("installed {}", asked.prefix.join("share/man").display());
    let modules = nu.modules()?;
    let source = root().join("nu");
    for file in files(&source)? {
        put(&source.join(&file), &modules.join(&file))?;
    }
    println!("installed {}", modules.display());
    let plugin = asked.prefix.join("bin/nu_plugin_proc");
    nu.run(&format!("plugin add {}", quoted(&plugin)))?;
    println!("registered the plugin with {}", nu.0.display());
    println!(
        "In a new Nushell: proc doctor, and use shim/lib.nu *. A shimd that runs is replaced by proc shim restart."
    );
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|folder| folder == asked.prefix.join("bin")) {
        println!(
            "{} is not on PATH: the plugin finds its shimd all the same.",
            asked.prefix.join("bin").display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// `[--prefix DIR]`. Services, and a daemon that runs, live on.
pub fn uninstall(arguments: &[String]) -> Result<ExitCode> {
    let asked = Asked::read(arguments)?;
    // Without Nushell there is nothing registered that could be of any use.
    if let Ok(nu) = Nu::find() {
        let registered = nu.run("plugin list | where name == proc | length")?;
        if registered != "0" {
            nu.run("plugin rm proc")?;
            println!("unregistered the plugin");
        }
        take_back(&nu.modules()?)?;
    }
    let pages = man::NAMES.into_iter().map(|name| asked.page(Path::new(name)));
    let pages: Vec<PathBuf> = pages.collect::<Result<_>>()?;
    for file in asked.programs().chain(pages).filter(|file| file.is_file()) {
        fs::remove_file(&file).context(file.display())?;
        println!("removed {}", file.display());
    }
    println!("What ran runs on: its state and logs stay where proc shim status said.");
    Ok(ExitCode::SUCCESS)
}

/// `cargo install --path`, as somebody types it who has no use for the rest, into the folder of the tools. In the one target
/// folder, so that what both need is built once; what the tests run is built after it, with the features that it is to have.
pub fn by_cargo() -> Result {
    for package in ["shimd", "plugin"] {
        let mut install = cargo();
        install.args(["install", "--path", package, "--debug", "--locked", "--force", "--root"]);
        install.arg(target()?.join("tools")).arg("--target-dir").arg(target()?);
        step(&format!("cargo install --path {package}"), install)?;
    }
    Ok(())
}

/// Removes the modules that `install` has put there. Others, which `service new` may have written, are the user's.
fn take_back(modules: &Path) -> Result {
    if !modules.is_dir() {
        return Ok(());
    }
    for file in files(&root().join("nu"))? {
        let file = modules.join(file);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).context(file.display()),
            _ => {}
        }
    }
    // Only empty ones go.
    for folder in [modules.join("lib"), modules.join("services"), modules.to_owned()] {
        let _ = fs::remove_dir(folder);
    }
    if modules.is_dir() {
        let left: Vec<String> = files(modules)?.iter().map(|file| file.display().to_string()).collect();
        println!("left in {}, since it is not of the installation: {}", modules.display(), left.join(", "));
    } else {
        println!("removed {}", modules.display());
    }
    Ok(())
}

/// Copies a file to a name beside, then renames it over.
fn put(from: &Path, to: &Path) -> Result {
    let folder = to.parent().context("no folder")?;
    fs::create_dir_all(folder).context(folder.display())?;
    let mut beside = to.as_os_str().to_owned();
    beside.push(".new");
    fs::copy(from, &beside).context(from.display())?;
    fs::rename(&beside, to).context(to.display())
}

/// All files below a folder, relative to it.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(part) = open.pop() {
        for entry in fs::read_dir(folder.join(&part)).context(folder.display())? {
            let entry = entry?;
            let path = part.join(entry.file_name());
            if entry.file_type()?.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    Ok(found)
}

/// A path as a word of Nushell's.
fn quoted(path: &Path) -> String {
    format!("r#'{}'#", path.display())
}
