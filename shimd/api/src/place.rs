//! A spec put in its place: where its sockets lie, and the argv and environment that name them.
//!
//! A basename lives at `<root>/<service>/<basename>`, an absolute path is taken as it is, `@name` is abstract and has no
//! folder. In `exec` and in the values of `env`, `{socket:NAME}` becomes a socket's path and `{socket_dir}` the folder;
//! other braces are left alone. The path of a `publish` socket is the instance's own, beside the public one:
//! `rpc.sock` is `.rpc.sock.7` to the seventh.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::spec::{SocketMode, SocketSpec, Spec, SpecError};

/// The bytes that a socket's path may have: `sun_path` holds 108 with the NUL at its end (unix(7)), and an abstract
/// name's leading NUL takes one too.
pub const MAX_SOCKET_PATH: usize = 107;

/// The digits of a generation that a `publish` socket's path must have room for.
const GENERATION_DIGITS: usize = 10;

impl Spec {
    /// The service's folder for sockets and the marker: `<root>/<name>`, or, where sockets are declared by absolute
    /// paths only, the folder of the first.
    pub fn socket_dir(&self, root: &Path) -> PathBuf {
        let own = root.join(&self.name);
        if self.sockets.iter().any(SocketSpec::is_basename) {
            return own;
        }
        let absolute = self.sockets.iter().find(|socket| !socket.is_abstract());
        absolute.and_then(|socket| Path::new(&socket.path).parent()).map_or(own, normal)
    }

    /// Where a socket of this spec lies; `@name` for an abstract one.
    pub fn socket_path(&self, root: &Path, socket: &SocketSpec) -> PathBuf {
        self.place(root, &socket.path)
    }

    /// The path that instances of this generation bind for a `publish` socket; `None` for any other.
    pub fn private_path(&self, root: &Path, socket: &SocketSpec, generation: u64) -> Option<PathBuf> {
        let publish = socket.mode == SocketMode::Publish;
        publish.then(|| private_name(&self.socket_path(root, socket), generation))
    }

    /// The ready marker, whether or not it is waited for.
    pub fn marker_path(&self, root: &Path) -> PathBuf {
        self.socket_dir(root).join(self.ready.marker_name())
    }

    /// The paths of `kill_other.socket`.
    pub fn kill_other_paths(&self, root: &Path) -> Vec<PathBuf> {
        self.kill_other.iter().map(|path| self.place(root, path)).collect()
    }

    /// The argv of an instance of this generation, placeholders replaced.
    ///
    /// # Errors
    /// A placeholder that names no declared socket, or more than one; a path that is not UTF-8.
    pub fn argv(&self, root: &Path, generation: u64) -> Result<Vec<String>, SpecError> {
        let replace =
            |(i, text): (usize, &String)| self.replace(root, generation, text, || format!("exec[{i}]"));
        self.exec.iter().enumerate().map(replace).collect()
    }

    /// The declared environment of an instance of this generation, placeholders replaced in its values.
    ///
    /// # Errors
    /// As [`Spec::argv`].
    pub fn environment(&self, root: &Path, generation: u64) -> Result<BTreeMap<String, String>, SpecError> {
        let replace = |(name, text): (&String, &String)| {
            Ok((name.clone(), self.replace(root, generation, text, || format!("env.{name}"))?))
        };
        self.env.iter().map(replace).collect()
    }

    /// Checks what depends on where sockets live: that each path fits a socket address, that no two are the same, that
    /// the marker is none of them, that `exec` and `env` name declared sockets only, and every `publish` socket.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check_placed(&self, root: &Path) -> Result<(), SpecError> {
        let mut seen: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for (i, socket) in self.sockets.iter().enumerate() {
            let field = format!("sockets[{i}].path");
            let path = self.socket_path(root, socket);
            // The `@` stands for the NUL that begins an abstract name.
            let length = path.as_os_str().len() - usize::from(socket.is_abstract());
            // Each instance's own path has two dots and its number more.
            let own = if socket.mode == SocketMode::Publish { 2 + GENERATION_DIGITS } else { 0 };
            if length + own > MAX_SOCKET_PATH {
                let limit = MAX_SOCKET_PATH - own;
                let why = if own > 0 { " of a publish socket" } else { "" };
                let problem = format!("{} is {length} bytes long, the limit{why} is {limit}", path.display());
                let fix = if socket.is_basename() {
                    "use a shorter file name or service name, or set HERO_SOCKET_DIR to a shorter folder"
                } else {
                    "use a shorter path"
                };
                return Err(SpecError::new(field, problem, fix));
            }
            if path.as_os_str().as_bytes().contains(&0) {
                return Err(SpecError::new(
                    field,
                    "holds a NUL byte",
                    "set HERO_SOCKET_DIR to a folder without one",
                ));
            }
            if let Some(first) = seen.get(&path) {
                let problem = format!("{} is declared twice (sockets[{first}] is the same)", path.display());
                return Err(SpecError::new(field, problem, "leave one of them out"));
            }
            seen.insert(path, i);
        }
        if self.ready.marker.is_some() && seen.contains_key(&self.marker_path(root)) {
            let problem = format!("{} is a declared socket too", self.marker_path(root).display());
            return Err(SpecError::new("ready.marker", problem, "write another file name"));
        }
        self.argv(root, 0)?;
        self.environment(root, 0)?;
        self.check_told()
    }

    /// An instance must be told where to bind a `publish` socket: it is another place each time.
    fn check_told(&self) -> Result<(), SpecError> {
        let texts = || self.exec.iter().chain(self.env.values());
        let told = |socket: &SocketSpec| {
            texts().any(|text| {
                let names = text.split("{socket:").skip(1).filter_map(|rest| rest.split_once('}'));
                names.map(|(name, _)| self.named(name, String::new)).any(|named| named == Ok(socket))
            })
        };
        let untold = |(_, socket): &(usize, &SocketSpec)| socket.mode == SocketMode::Publish && !told(socket);
        let Some((i, socket)) = self.sockets.iter().enumerate().find(untold) else { return Ok(()) };
        Err(SpecError::new(
            format!("sockets[{i}].mode"),
            format!("each instance binds {} at a path of its own, and nothing tells it which", socket.path),
            format!("write {{socket:{}}} in exec or env, where the program takes the path", socket.path),
        ))
    }

    fn place(&self, root: &Path, declared: &str) -> PathBuf {
        match declared.as_bytes().first() {
            Some(b'@') => PathBuf::from(declared),
            Some(b'/') => normal(Path::new(declared)),
            _ => root.join(&self.name).join(declared),
        }
    }

    fn replace(
        &self,
        root: &Path,
        generation: u64,
        text: &str,
        field: impl Fn() -> String,
    ) -> Result<String, SpecError> {
        let utf8 = |path: PathBuf| {
            path.into_os_string().into_string().map_err(|path| {
                let problem = format!("needs the path {}, which is not UTF-8", path.display());
                SpecError::new(field(), problem, "set HERO_SOCKET_DIR to a folder whose path is UTF-8")
            })
        };
        let mut replaced = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("{socket") {
            let (before, found) = rest.split_at(start);
            replaced.push_str(before);
            if let Some(after) = found.strip_prefix("{socket_dir}") {
                replaced.push_str(&utf8(self.socket_dir(root))?);
                rest = after;
            } else if let Some(after) = found.strip_prefix("{socket:") {
                let Some((name, after)) = after.split_once('}') else {
                    let problem = format!("{text:?} has a {{socket: without its closing brace");
                    return Err(SpecError::new(field(), problem, "write {socket:NAME}"));
                };
                let socket = self.named(name, &field)?;
                let own = self.private_path(root, socket, generation);
                replaced.push_str(&utf8(own.unwrap_or_else(|| self.socket_path(root, socket)))?);
                rest = after;
            } else {
                replaced.push_str("{socket");
                rest = found.strip_prefix("{socket").unwrap_or_default();
            }
        }
        replaced.push_str(rest);
        Ok(replaced)
    }

    /// The socket that a placeholder means: by its declared path, else by its file name.
    fn named(&self, name: &str, field: impl Fn() -> String) -> Result<&SocketSpec, SpecError> {
        if let Some(socket) = self.sockets.iter().find(|socket| socket.path == name) {
            return Ok(socket);
        }
        let of_name = |socket: &&SocketSpec| {
            !socket.is_abstract() && Path::new(&socket.path).file_name().is_some_and(|file| file == name)
        };
        let mut named = self.sockets.iter().filter(of_name);
        match (named.next(), named.next()) {
            (Some(socket), None) => Ok(socket),
            (Some(_), Some(_)) => {
                let problem = format!("{{socket:{name}}} could be more than one declared socket");
                Err(SpecError::new(field(), problem, format!("write its whole path: {}", self.declared())))
            }
            (None, _) => {
                let problem = format!("{{socket:{name}}} names no declared socket");
                let fix = match self.sockets.is_empty() {
                    true => "declare it in sockets (none is declared)".to_string(),
                    false => format!("declare it in sockets, or name a declared one: {}", self.declared()),
                };
                Err(SpecError::new(field(), problem, fix))
            }
        }
    }

    fn declared(&self) -> String {
        self.sockets.iter().map(|socket| socket.path.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// The path with `//` made one `/`, so that one file has one spelling.
fn normal(path: &Path) -> PathBuf {
    path.components().collect()
}

/// `<folder>/.<name>.<generation>`: in the public path's own folder, for a link does not leave its file system and the
/// service's user can bind there.
pub fn private_name(public: &Path, generation: u64) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(public.file_name().unwrap_or_default());
    name.push(format!(".{generation}"));
    public.with_file_name(name)
}

/// The generation whose path for the `publish` socket at `public` has this file name.
pub fn generation_of(public: &Path, name: &OsStr) -> Option<u64> {
    let rest = name.as_bytes().strip_prefix(b".")?.strip_prefix(public.file_name()?.as_bytes())?;
    let digits = std::str::from_utf8(rest.strip_prefix(b".")?).ok()?;
    digits.parse().ok().filter(|generation: &u64| generation.to_string() == digits)
}
