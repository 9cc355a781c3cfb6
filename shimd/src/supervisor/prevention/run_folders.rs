//! The run folders that systemd removes when a unit stops: `RuntimeDirectory=`, systemd.exec(5).
//!
//! | the unit says | its folder below `/run` goes |
//! | --- | --- |
//! | `RuntimeDirectory=` alone | whenever it stops, with all that lies in it, whoever else uses it |
//! | and `RuntimeDirectoryPreserve=restart` | when it stops, but not when it is restarted |
//! | and `RuntimeDirectoryPreserve=yes` | never |

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Where units are, the later ones hidden by a namesake.
const FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
];

/// Which units take which folder with them.
pub type Takers = BTreeMap<PathBuf, BTreeSet<String>>;

/// The machine's.
pub fn takers() -> Takers {
    read(&FOLDERS.map(PathBuf::from), Path::new("/run"))
}

/// The units that take a path with them when they stop.
pub fn of<'a>(takers: &'a Takers, path: &Path) -> BTreeSet<&'a str> {
    let above = path.ancestors().skip(1).filter_map(|folder| takers.get(folder));
    above.flatten().map(String::as_str).collect()
}

fn read(folders: &[PathBuf], run: &Path) -> Takers {
    let (mut seen, mut takers) = (BTreeSet::new(), Takers::new());
    for folder in folders {
        for file in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".service") || !seen.insert(name.clone()) {
                continue;
            }
            let mut text = fs::read(file.path()).unwrap_or_default();
            // Drop-ins of the unit, in whichever folder.
            for folder in folders {
                for part in fs::read_dir(folder.join(format!("{name}.d"))).into_iter().flatten().flatten() {
                    text.push(b'\n');
                    text.extend(fs::read(part.path()).unwrap_or_default());
                }
            }
            for taken in taken(&String::from_utf8_lossy(&text)) {
                takers.entry(run.join(taken)).or_default().insert(name.clone());
            }
        }
    }
    takers
}

/// The folders that a unit of this text removes when it stops.
fn taken(unit: &str) -> Vec<String> {
    let (mut folders, mut kept) = (Vec::new(), false);
    for line in unit.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        match key.trim() {
            // An empty one takes back what was said before.
            "RuntimeDirectory" if value.trim().is_empty() => folders.clear(),
            "RuntimeDirectory" => folders.extend(
                value
                    .split_whitespace()
                    .filter(|name| !name.contains('%'))
                    .map(|name| name.split_once(':').map_or(name, |(folder, _)| folder).to_owned()),
            ),
            "RuntimeDirectoryPreserve" => kept = matches!(value.trim(), "yes" | "true" | "on" | "1"),
            _ => {}
        }
    }
    if kept { Vec::new() } else { folders }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_takes_its_folders_unless_it_preserves_them() {
        assert_eq!(taken("[Service]\nRuntimeDirectory=a b/c d:e\n"), ["a", "b/c", "d"]);
        assert_eq!(taken("RuntimeDirectory=a\nRuntimeDirectory=\nRuntimeDirectory=b %i"), ["b"]);
        assert_eq!(taken("RuntimeDirectory=a\nRuntimeDirectoryPreserve=restart"), ["a"]);
        assert!(taken("RuntimeDirectory=a\nRuntimeDirectoryPreserve=yes").is_empty());
        assert!(taken("#RuntimeDirectory=a").is_empty());
    }

    #[test]
    fn siblings_are_all_named() {
        let world = tempfile::tempdir().unwrap();
        let folders = ["etc", "lib"].map(|name| world.path().join(name));
        for folder in &folders {
            fs::create_dir(folder).unwrap();
        }
        fs::write(folders[1].join("a.service"), "RuntimeDirectory=hero").unwrap();
        fs::write(folders[1].join("b.service"), "RuntimeDirectory=hero").unwrap();
        fs::write(folders[1].join("c.service"), "RuntimeDirectory=hero").unwrap();
        fs::write(folders[0].join("c.service"), "").unwrap();
        fs::create_dir(folders[0].join("b.service.d")).unwrap();
        fs::write(folders[0].join("b.service.d/keep.conf"), "RuntimeDirectoryPreserve=yes").unwrap();
        fs::write(folders[1].join("d.service"), "RuntimeDirectory=hero/web").unwrap();
        let takers = read(&folders, Path::new("/run"));
        let of = |path: &str| of(&takers, Path::new(path)).into_iter().collect::<Vec<_>>();
        assert_eq!(of("/run/hero/web/rpc.sock"), ["a.service", "d.service"]);
        assert_eq!(of("/run/hero/rpc.sock"), ["a.service"]);
        assert!(of("/run/hero").is_empty() && of("/run/heroes/rpc.sock").is_empty());
    }
}
