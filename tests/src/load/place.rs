//! The servers that are put under load, and how each is told where to listen in each mode that it can do.
//!
//! | server | `bind` | `publish` | `activate` |
//! | --- | --- | --- | --- |
//! | redis | as in its record | `--unixsocket` with the instance's own path | takes no descriptor |
//! | nginx | as in its record | a configuration of each instance's own, made before it starts | `NGINX=3;`, by which it takes listeners from its predecessor: non-blocking ones |
//! | gunicorn | as in its record | `-b` with the instance's own path | `LISTEN_FDS` |
//! | postgresql | as in its record | names its socket by a port | takes no descriptor |
//!
//! nginx and PostgreSQL are stopped by the signals by which they let nobody down (SIGQUIT), or wait for nobody (SIGINT).

use super::Dialect;
use crate::fault::Context;
use crate::record::Prepared;
use crate::{Json, Record, Result, specs};
use serde_json::{Value, json};

/// How a socket is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The server binds the public path.
    Bind,
    /// Each instance binds its own.
    Publish,
    /// The daemon binds.
    Activate,
}

impl Mode {
    /// Its name in a spec.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Bind => "bind",
            Mode::Publish => "publish",
            Mode::Activate => "activate",
        }
    }
}

/// A server for the load.
#[derive(Debug, Clone, Copy)]
pub struct Server {
    /// Its record's name.
    pub name: &'static str,
    /// What its clients speak.
    pub dialect: Dialect,
    /// What it can do.
    pub modes: &'static [Mode],
    /// Whether a connection stays open after an answer.
    pub stays_open: bool,
    signal: &'static str,
}

impl Server {
    /// How it is installed and started.
    pub fn record(&self) -> Result<Record> {
        Record::named(self.name)
    }
}

/// All of them.
pub const SERVERS: [Server; 4] = {
    use Mode::*;
    let all = &[Bind, Publish, Activate];
    [
        Server {
            name: "redis",
            dialect: Dialect::Redis,
            modes: &[Bind, Publish],
            stays_open: true,
            signal: "SIGTERM",
        },
        Server { name: "nginx", dialect: Dialect::Http, modes: all, stays_open: true, signal: "SIGQUIT" },
        Server { name: "gunicorn", dialect: Dialect::Http, modes: all, stays_open: false, signal: "SIGTERM" },
        Server {
            name: "postgresql",
            dialect: Dialect::Postgres,
            modes: &[Bind],
            stays_open: true,
            signal: "SIGINT",
        },
    ]
};

/// The record's spec with its socket in this mode.
pub fn placed(prepared: &Prepared, server: &Server, mode: Mode) -> Result<Value> {
    let path = prepared.sockets.first().context("no socket")?.display().to_string();
    let name = path.rsplit('/').next().unwrap_or_default();
    let own = format!("{{socket:{name}}}");
    let mut exec: Vec<String> = prepared
        .spec
        .field("exec")
        .rows()?
        .iter()
        .filter_map(|word| word.as_str().map(str::to_owned))
        .collect();
    let mut env = prepared.spec.field("env").clone();
    match (server.name, mode) {
        (_, Mode::Bind) => {}
        ("nginx", _) => {
            // Two instances have two pid files.
            let mut script = "sed -e \"s#nginx.pid#nginx.$$.pid#\"".to_owned();
            if mode == Mode::Publish {
                script += " -e \"s#unix:[^;]*;#unix:$OWN;#\"";
            }
            script += " nginx.conf >nginx.$$.conf && exec ";
            if mode == Mode::Activate {
                // Its predecessor would have left it so, and nginx does not set it: a worker would hang in accept(2).
                script += "python3 -c 'import os, sys; os.set_blocking(3, False); os.execv(sys.argv[1], sys.argv[1:])' ";
            }
            script += "\"$0\" -p . -c \"$PWD/nginx.$$.conf\" -e stderr";
            let program = exec.first().context("no program")?.clone();
            exec = vec!["/bin/sh".into(), "-c".into(), script, program];
            let variables = env.as_object_mut().context("no environment")?;
            match mode {
                Mode::Publish => variables.insert("OWN".into(), json!(own)),
                _ => variables.insert("NGINX".into(), json!("3;")),
            };
        }
        (_, Mode::Publish) => exec.iter_mut().for_each(|word| *word = word.replace(&path, &own)),
        (_, Mode::Activate) => {
            let at = exec.iter().position(|word| word == "-b").context("it binds no path")?;
            exec.drain(at..at + 2);
        }
    }
    Ok(specs::with(
        prepared.spec.clone(),
        json!({
            "exec": exec,
            "env": env,
            "sockets": [{"path": path, "mode": mode.name()}],
            "stop": {"signal": server.signal, "timeout": "12sec"},
            "restart": {"policy": "always", "delay": "20ms", "limit": 10_000},
            "on_missing": "relink",
        }),
    ))
}
