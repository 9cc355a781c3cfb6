//! Which folders systemd-tmpfiles cleans by age: the lines of tmpfiles.d(5) that have one.
//!
//! A file hides one of the same name in a later folder. Of a path with a glob or a specifier, what comes before it counts.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Where the rules are, first come first.
const FOLDERS: [&str; 4] =
    ["/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/local/lib/tmpfiles.d", "/usr/lib/tmpfiles.d"];
/// Types of a line whose age is heeded.
const AGED: &str = "dDevqQC";

/// The machine's folders that are cleaned by age; without rules that can be read, `/tmp` and `/var/tmp`.
pub fn cleaned() -> BTreeSet<PathBuf> {
    let mut cleaned: BTreeSet<PathBuf> = ["/tmp", "/var/tmp"].map(PathBuf::from).into();
    cleaned.extend(read(&FOLDERS.map(PathBuf::from)));
    cleaned
}

fn read(folders: &[PathBuf]) -> BTreeSet<PathBuf> {
    let (mut seen, mut cleaned) = (BTreeSet::<OsString>::new(), BTreeSet::new());
    for folder in folders {
        for file in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = file.file_name();
            if Path::new(&name).extension().is_some_and(|e| e == "conf") && seen.insert(name) {
                let text = fs::read(file.path()).unwrap_or_default();
                cleaned.extend(String::from_utf8_lossy(&text).lines().filter_map(aged));
            }
        }
    }
    cleaned
}

/// The folder that a line cleans.
fn aged(line: &str) -> Option<PathBuf> {
    let mut fields = line.split_whitespace();
    let (kind, path) = (fields.next()?, fields.next()?);
    let age = fields.nth(3)?;
    if !kind.starts_with(|letter| AGED.contains(letter)) || age == "-" {
        return None;
    }
    let plain = |part: &Component| !part.as_os_str().to_string_lossy().contains(['*', '?', '[', '%']);
    let folder: PathBuf = Path::new(path.trim_matches('"')).components().take_while(plain).collect();
    // A rule that may be for anything is not one for our folders.
    folder.is_absolute().then_some(folder).filter(|folder| folder.parent().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_an_age_name_a_folder() {
        let named = |line| aged(line).map(|p| p.display().to_string());
        assert_eq!(named("q /tmp 1777 root root 10d").as_deref(), Some("/tmp"));
        assert_eq!(named("d /run/web 0755 web web m:1d").as_deref(), Some("/run/web"));
        assert_eq!(named("e! /var/cache/*/x - - - 1w").as_deref(), Some("/var/cache"));
        assert_eq!(named("D /run/%i/x - - - 1w -").as_deref(), Some("/run"));
        for none in [
            "",
            "# q /tmp - - - 1d",
            "d /run/web 0755",
            "d /run/web - - - -",
            "x /tmp/a - - - 1d",
            "e /* - - - 1d",
        ] {
            assert_eq!(named(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_file_hides_its_namesakes() {
        let world = tempfile::tempdir().unwrap();
        let folders = ["etc", "lib"].map(|name| world.path().join(name));
        for folder in &folders {
            fs::create_dir(folder).unwrap();
        }
        fs::write(folders[0].join("a.conf"), "").unwrap();
        fs::write(folders[1].join("a.conf"), "d /a - - - 1d").unwrap();
        fs::write(folders[1].join("b.conf"), b"d /b - - - 1d\nd /\xff - - - 1d\n").unwrap();
        fs::write(folders[1].join("c"), "d /c - - - 1d").unwrap();
        let read = read(&folders);
        assert!(
            read.contains(Path::new("/b"))
                && !read.contains(Path::new("/a"))
                && !read.contains(Path::new("/c"))
        );
    }
}
