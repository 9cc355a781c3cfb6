//! From JSON text to a [`Spec`], by hand, so that every error names its field exactly.
//!
//! Rules: an unknown field is not looked at; `null` is the same as leaving the field out; a text is never taken for a
//! list, nor a number for a text (Nushell hands `10sec` on as a number: its text could only be guessed).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::number::whole_number;
use crate::signal;
use crate::size::parse_size;
use crate::spec::{
    Log, OnMissing, Ready, Restart, RestartPolicy, SocketKind, SocketMode, SocketSpec, Spec, SpecError, Stop,
};

use crate::walk::{Field, Record, Result, found};

impl Spec {
    /// Reads a spec from its JSON text and checks all that can be told without the machine: syntax, types, ranges and
    /// names. What depends on where sockets live is checked by [`Spec::check_placed`]; users, groups, programs and
    /// other services by the daemon.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn parse(json: &str) -> Result<Spec> {
        let value: Value = serde_json::from_str(json).map_err(|e| {
            SpecError::new(
                "spec",
                format!("is not JSON: {e}"),
                "give one JSON object, such as {\"name\": …, \"exec\": […]}",
            )
        })?;
        Spec::from_value(&value)
    }

    /// [`Spec::parse`] for a value that was read already.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn from_value(value: &Value) -> Result<Spec> {
        let root = Field { path: String::new(), value }.record("give a record with name and exec")?;
        let name = name(&root)?;
        Ok(Spec {
            exec: exec(&root)?,
            cwd: cwd(&root)?,
            env: env(&root)?,
            user: root.get("user").map(|field| account(&field, "name a user")).transpose()?,
            group: root.get("group").map(|field| account(&field, "name a group")).transpose()?,
            umask: umask(&root)?,
            sockets: sockets(&root)?,
            kill_other: kill_other(&root)?,
            ready: ready(&root)?,
            stop: stop(&root)?,
            restart: restart(&root)?,
            on_missing: root.word("on_missing", &ON_MISSING)?.unwrap_or_default(),
            settle: root.duration("settle")?.unwrap_or(Duration::from_millis(100)),
            depends_on: depends_on(&root, &name)?,
            log: log(&root)?,
            autostart: root.bool("autostart")?,
            wedged_after: root.duration("wedged_after")?.unwrap_or(Duration::from_secs(5)),
            name,
        })
    }
}

const ON_MISSING: [(&str, OnMissing); 3] =
    [("relink", OnMissing::Relink), ("restart", OnMissing::Restart), ("report", OnMissing::Report)];
const POLICIES: [(&str, RestartPolicy); 3] = [
    ("always", RestartPolicy::Always),
    ("on-failure", RestartPolicy::OnFailure),
    ("never", RestartPolicy::Never),
];
const KINDS: [(&str, SocketKind); 3] =
    [("stream", SocketKind::Stream), ("dgram", SocketKind::Dgram), ("seqpacket", SocketKind::Seqpacket)];
const MODES: [(&str, SocketMode); 3] =
    [("bind", SocketMode::Bind), ("publish", SocketMode::Publish), ("activate", SocketMode::Activate)];

const NAME_RULE: &str = "write 1 to 64 letters, digits, `_`, `.` or `-`, the first a letter or digit";

fn name(root: &Record) -> Result<String> {
    match root.get("name") {
        Some(field) => service_name(&field),
        None => Err(root.missing("name", NAME_RULE)),
    }
}

fn service_name(field: &Field) -> Result<String> {
    let name = field.text(NAME_RULE)?;
    let problem = if name.is_empty() {
        "is empty".to_string()
    } else if name.contains('/') {
        format!("{name:?} holds a `/`")
    } else if name.len() > 64 {
        format!("is {} bytes long, the limit is 64", name.len())
    } else if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        format!("{name:?} does not begin with a letter or digit")
    } else if let Some(c) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !"_.-".contains(*c)) {
        format!("{name:?} holds {c:?}")
    } else {
        return Ok(name.to_string());
    };
    Err(field.error(problem, NAME_RULE))
}

fn exec(root: &Record) -> Result<Vec<String>> {
    const FIX: &str = "write the program and its arguments as a list of strings, such as [\"redis-server\", \"--port\", \"0\"]";
    let Some(field) = root.get("exec") else { return Err(root.missing("exec", FIX)) };
    let items = field.items(FIX)?;
    match items.first() {
        None => Err(field.error("is empty", FIX)),
        Some(program) if program.value == "" => Err(program.error("is empty", "name a program")),
        Some(_) => items.iter().map(|item| item.quoted_text(FIX).map(str::to_string)).collect(),
    }
}

fn cwd(root: &Record) -> Result<Option<PathBuf>> {
    const FIX: &str = "write an absolute path";
    let Some(field) = root.get("cwd") else { return Ok(None) };
    let cwd = field.text(FIX)?;
    if !cwd.starts_with('/') {
        return Err(field.error(format!("{cwd:?} is a relative path"), FIX));
    }
    Ok(Some(PathBuf::from(cwd)))
}

fn env(root: &Record) -> Result<BTreeMap<String, String>> {
    let mut env = BTreeMap::new();
    let Some(record) = root.record("env", "write a record of variable names and strings")? else {
        return Ok(env);
    };
    for key in record.map.keys() {
        let Some(field) = record.get(key) else { continue };
        if key.is_empty() || key.contains(['=', '\0']) {
            return Err(field.error("is no name of a variable", "write a name without `=`"));
        }
        env.insert(key.clone(), field.quoted_text("write the value as a string")?.to_string());
    }
    Ok(env)
}

/// A user or group: a name, or its number.
fn account(field: &Field, fix: &str) -> Result<String> {
    if let Some(number) = whole_number(field.value).and_then(|n| u32::try_from(n).ok()) {
        return Ok(number.to_string());
    }
    match field.text(fix)? {
        "" => Err(field.error("is empty", fix)),
        text => Ok(text.to_string()),
    }
}

fn umask(root: &Record) -> Result<Option<u32>> {
    const FIX: &str = "write octal digits in a string, \"000\" to \"777\", or a number from 0 to 0o777 (511)";
    let Some(field) = root.get("umask") else { return Ok(None) };
    let (umask, shown) = match field.value {
        Value::String(text) => {
            let digits = text.strip_prefix("0o").unwrap_or(text);
            let octal = !digits.is_empty() && digits.chars().all(|c| c.is_digit(8));
            let umask = octal.then(|| i128::from_str_radix(digits, 8).unwrap_or(i128::MAX));
            (umask, format!("{text:?}"))
        }
        Value::Number(number) => (whole_number(field.value), number.to_string()),
        other => return Err(field.error(format!("is {}", found(other)), FIX)),
    };
    match umask {
        Some(umask) if (0..=0o777).contains(&umask) => Ok(u32::try_from(umask).ok()),
        Some(_) => Err(field.error(format!("{shown} is out of range"), FIX)),
        None => Err(field.error(format!("{shown} is no file mode mask"), FIX)),
    }
}

fn sockets(root: &Record) -> Result<Vec<SocketSpec>> {
    const FIX: &str = "write a list of file names, absolute paths or records with a path";
    let mut sockets: Vec<SocketSpec> = Vec::new();
    let Some(field) = root.get("sockets") else { return Ok(sockets) };
    for item in field.items(FIX)? {
        let (path, socket) = socket(&item)?;
        if let Some(first) =
            sockets.iter().position(|other| Path::new(&other.path) == Path::new(&socket.path))
        {
            let problem = format!("{:?} is declared twice (sockets[{first}] is the same)", socket.path);
            return Err(path.error(problem, "leave one of them out"));
        }
        sockets.push(socket);
    }
    Ok(sockets)
}

/// One socket, and the field that holds its path.
fn socket<'a>(item: &Field<'a>) -> Result<(Field<'a>, SocketSpec)> {
    const FIX: &str = "write a file name such as rpc.sock, an absolute path, or a record with a path";
    if item.value.is_string() {
        // A string is short for a record of its path, and errors name it so, here as in `check_placed`.
        let path_field = Field { path: format!("{}.path", item.path), value: item.value };
        let socket = SocketSpec {
            path: socket_path(&path_field)?,
            kind: SocketKind::default(),
            mode: SocketMode::default(),
            optional: false,
            clients: Vec::new(),
            backlog: None,
        };
        return Ok((path_field, socket));
    }
    if !item.value.is_object() {
        return Err(item.error(format!("is {}, not a socket", found(item.value)), FIX));
    }
    let record = item.record(FIX)?;
    let Some(path_field) = record.get("path") else { return Err(record.missing("path", FIX)) };
    let path = socket_path(&path_field)?;
    let mode = record.word("mode", &MODES)?.unwrap_or_default();
    if mode == SocketMode::Publish && path.starts_with('@') {
        return Err(record.error(
            "mode",
            "publish needs a file name, and an abstract socket has none",
            "use bind or activate",
        ));
    }
    let clients = match record.get("clients") {
        Some(field) => {
            const FIX: &str = "write a list of user or group names";
            field.items(FIX)?.iter().map(|item| account(item, FIX)).collect::<Result<_>>()?
        }
        None => Vec::new(),
    };
    let socket = SocketSpec {
        path,
        kind: record.word("type", &KINDS)?.unwrap_or_default(),
        mode,
        optional: record.bool("optional")?.unwrap_or(false),
        clients,
        backlog: record.whole("backlog", 0..=i32::MAX as u32)?,
    };
    Ok((path_field, socket))
}

/// A path as `sockets` and `kill_other.socket` take it: a basename, an absolute path, or `@name`.
fn socket_path(field: &Field) -> Result<String> {
    const FIX: &str = "write a file name such as rpc.sock, or an absolute path";
    let path = field.text(FIX)?;
    let problem = match path.strip_prefix('@') {
        Some("") => Some("names no abstract socket".to_string()),
        Some(_) => None,
        None if path.is_empty() => Some("is empty".to_string()),
        None if path == "." || path == ".." => Some(format!("{path:?} is a folder")),
        None if path.ends_with('/') => Some(format!("{path:?} is a folder: it ends in `/`")),
        None if path.split('/').any(|part| part == "." || part == "..") => {
            Some(format!("{path:?} goes through `.` or `..`"))
        }
        None if !path.starts_with('/') && path.contains('/') => {
            Some(format!("{path:?} is neither a file name nor an absolute path"))
        }
        None => None,
    };
    match problem {
        Some(problem) => Err(field.error(problem, FIX)),
        None => Ok(path.to_string()),
    }
}

fn kill_other(root: &Record) -> Result<Vec<String>> {
    const FIX: &str = "write {socket: [path, ...]}";
    let Some(record) = root.record("kill_other", FIX)? else { return Ok(Vec::new()) };
    let Some(field) = record.get("socket") else { return Ok(Vec::new()) };
    field.items("write a list of file names or absolute paths")?.iter().map(socket_path).collect()
}

fn ready(root: &Record) -> Result<Ready> {
    let mut ready = Ready::default();
    let Some(record) = root.record("ready", "write a record of timeout, marker and notify")? else {
        return Ok(ready);
    };
    if let Some(timeout) = record.duration("timeout")? {
        if timeout.is_zero() {
            return Err(record.error(
                "timeout",
                "is zero: nothing could be ready in time",
                "write a duration such as 30sec",
            ));
        }
        ready.timeout = timeout;
    }
    if let Some(field) = record.get("marker") {
        const FIX: &str = "write a file name such as .ready";
        let marker = field.text(FIX)?;
        if marker.is_empty() || marker.contains('/') || marker == "." || marker == ".." {
            return Err(field.error(format!("{marker:?} is no file name"), FIX));
        }
        ready.marker = Some(marker.to_string());
    }
    ready.notify = record.bool("notify")?.unwrap_or(false);
    Ok(ready)
}

fn stop(root: &Record) -> Result<Stop> {
    let mut stop = Stop::default();
    let Some(record) = root.record("stop", "write a record of signal and timeout")? else { return Ok(stop) };
    if let Some(field) = record.get("signal") {
        stop.signal = signal(&field)?;
    }
    if let Some(timeout) = record.duration("timeout")? {
        stop.timeout = timeout;
    }
    Ok(stop)
}

/// A signal by name or number.
fn signal(field: &Field) -> Result<i32> {
    const FIX: &str = "write a name such as SIGTERM (see `kill -l`) or its number";
    match field.value {
        Value::String(text) => signal::by_name(text).ok_or(format!("{text:?} is no signal")),
        Value::Number(number) => signal::by_number(field.value).ok_or(format!("{number} is no signal")),
        other => Err(format!("is {}, not a signal", found(other))),
    }
    .map_err(|problem| field.error(problem, FIX))
}

fn restart(root: &Record) -> Result<Restart> {
    let mut restart = Restart::default();
    let record = root.record("restart", "write a record of policy, delay, max_delay, limit and window")?;
    let Some(record) = record else { return Ok(restart) };
    restart.policy = record.word("policy", &POLICIES)?.unwrap_or_default();
    (restart.delay, restart.max_delay) = match (record.duration("delay")?, record.duration("max_delay")?) {
        (Some(delay), Some(max)) if max < delay => {
            return Err(record.error(
                "max_delay",
                "is shorter than restart.delay",
                "write a duration that is not",
            ));
        }
        (Some(delay), Some(max)) => (delay, max),
        (Some(delay), None) => (delay, restart.max_delay.max(delay)),
        (None, Some(max)) => (restart.delay.min(max), max),
        (None, None) => (restart.delay, restart.max_delay),
    };
    restart.limit = record.whole("limit", 1..=u32::MAX)?.unwrap_or(restart.limit);
    restart.window = record.duration("window")?.unwrap_or(restart.window);
    Ok(restart)
}

fn depends_on(root: &Record, own: &str) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    let Some(field) = root.get("depends_on") else { return Ok(names) };
    for item in field.items("write a list of service names")? {
        let name = service_name(&item)?;
        if name == own {
            return Err(item.error(format!("{name:?} is the service itself"), "leave it out"));
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn log(root: &Record) -> Result<Log> {
    let mut log = Log::default();
    let Some(record) = root.record("log", "write a record of max_size and keep")? else { return Ok(log) };
    if let Some(field) = record.get("max_size") {
        log.max_size = parse_size(field.value).map_err(|e| field.error(e.problem, e.fix))?;
        if log.max_size == 0 {
            return Err(field.error("is zero", "write a size such as 10MB"));
        }
    }
    log.keep = record.whole("keep", 0..=u32::MAX)?.unwrap_or(log.keep);
    Ok(log)
}
