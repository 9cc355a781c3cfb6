//! `cargo xtask demo`: a server whose socket file is lost while it keeps listening, the audit that names it, the clean
//! restart that cures it. Real Nushell, real plugin, real server, in a home of their own; nothing is left behind.

use crate::{build, nushell, servers};
use scenarios::client::ping;
use scenarios::fault::Context;
use scenarios::wait::holds_for;
use scenarios::{Fault, Json, Record, Result, World, ensure, wait_until};
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

/// What `--record` replaces lies between these lines.
const MARKERS: (&str, &str) = ("<!-- demo -->", "<!-- /demo -->");

/// Plays the story; its status is 1 if any step did not go as told.
pub fn demo(arguments: &[String]) -> Result<ExitCode> {
    let (mut record, mut built) = (None, false);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.as_slice()) {
            ("--built", _) => built = true,
            ("--record", [file, ..]) => {
                record = Some(build::root().join(file));
                arguments.next();
            }
            _ => return Err(Fault::new("usage: cargo xtask demo [--record FILE] [--built]")),
        }
    }
    let redis = Record::named("redis")?;
    if !built {
        nushell::nushell()?;
        servers::install(std::slice::from_ref(&redis));
        build::programs()?;
    }

    let world = World::new("demo", None)?;
    let mut stage = Stage {
        world: &world,
        told: String::new(),
        recorded: true,
        color: std::io::stdout().is_terminal() && record.is_none(),
    };
    let played = stage.play(redis.lacking());
    let ended = world.end();
    if played.is_err() || ended.is_err() {
        eprintln!("{}", world.story());
        played.and(ended)?;
        return Ok(ExitCode::FAILURE);
    }
    world.remove();
    stage.say("Every process has ended, and the folder is removed.");
    if let Some(file) = record {
        put_between_markers(&file, &stage.told)?;
        eprintln!("xtask: written to {}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// What the audience sees.
struct Stage<'a> {
    world: &'a World,
    told: String,
    /// What is said now goes into `told`, too: the README has the first half.
    recorded: bool,
    color: bool,
}

/// The server of the story: its socket's name and how it is asked.
struct Hero {
    exec: String,
    socket: &'static str,
    client: String,
    answer: &'static str,
}

impl Stage<'_> {
    fn play(&mut self, no_redis: Option<String>) -> Result {
        let hero = self.hero(no_redis);
        let path = self.world.socket("web", hero.socket);

        self.say("# A service is declared, and started. No daemon runs yet: the command starts one.");
        self.run(&format!("proc register {{name: web, exec: [{}], sockets: [{}]}}", hero.exec, hero.socket))?;
        self.run("proc start web")?;
        self.verdict("web", "ok")?;
        self.ask(&hero)?;

        self.say("# Something removes the file. It is linked back to the same listener: nothing is restarted or dropped.");
        self.run(&format!("rm {}", path.display()))?;
        let world = self.world;
        wait_until(SOON, "the file is back", || {
            world.socket_row("web", hero.socket).is_ok_and(|row| {
                row.int("relinked").is_ok_and(|times| times == 1)
                    && row.text("verdict").is_ok_and(|verdict| verdict == "ok")
            })
        })?;
        self.ask(&hero)?;
        self.run("proc socket-check web | select socket verdict pid relinked")?;
        self.run("proc events web --raw | lines | last 3 | to text")?;

        self.say("# The same where shimd is told to report only. The server listens on, and no client can reach it.");
        self.run("proc status web | get spec | insert on_missing report | proc register")?;
        self.run("proc restart web | select name outcome old_pid new_pid")?;
        self.remove(&path)?;
        self.verdict("web", "dangling")?;
        self.run("proc list")?;
        self.status("web", "failed")?;
        self.run(&format!("{} | complete | reject stdout", hero.client))?;

        self.say("# What happened, and who did it (as root; else nobody is named). It is kept, and can be followed.");
        self.run("proc events web --raw | lines | where $it =~ 'removed by nu' | to text")?;

        self.say("# The cure: everything of the old instance is ended and cleaned, a new one is spawned and verified.");
        self.run("proc restart web --clean | select name outcome old_pid new_pid stopped_in ready_in")?;
        self.verdict("web", "ok")?;
        self.ask(&hero)?;

        self.recorded = false;
        self.say("# An old instance that unlinks late: its child removes, a second after the end, whatever lies there by then.");
        self.say("# ($unixd is a small server of the project's own, with the habits of real ones.)");
        self.fixture("late", "--unlink-late-child '1000'")?;
        self.run("proc restart late --clean | select name outcome old_pid new_pid stopped_in ready_in")?;
        let path = self.world.socket("late", "rpc.sock");
        holds_for(Duration::from_millis(1500), "the new instance keeps its file", || Ok(path.exists()))?;
        self.say("# A second and a half later:");
        self.verdict("late", "ok")?;

        self.say("# An old instance whose child, in a session of its own, keeps the listener open.");
        self.fixture("keeper", "--child-holds")?;
        self.run("proc restart keeper --clean | select name outcome old_pid new_pid stopped_in ready_in")?;
        self.verdict("keeper", "ok")?;
        let pid = self.world.service("keeper")?.pid("pid")?;
        let answers = ping(&self.world.socket("keeper", "rpc.sock"))?;
        ensure!(answers == pid, "{answers} answers in place of {pid}");
        self.say(&format!("A client is answered by process {pid}, the new one."));

        self.say("# The end.");
        self.run("proc stop web late keeper")?;
        self.run("proc list")?;
        self.run("proc shim stop")?;
        Ok(())
    }

    fn hero(&mut self, no_redis: Option<String>) -> Hero {
        let path = |socket| self.world.socket("web", socket).display().to_string();
        match no_redis {
            None => Hero {
                exec: "redis-server --port '0' --unixsocket '{socket:redis.sock}' --save ''".to_owned(),
                socket: "redis.sock",
                client: format!("redis-cli -s {} ping", path("redis.sock")),
                answer: "PONG",
            },
            Some(reason) => {
                let client = format!("^$unixd ask stream {} ping", path("rpc.sock"));
                self.say(&format!(
                    "# {reason}: a small server of the project's own, $unixd, takes its place."
                ));
                Hero {
                    exec: "$unixd '{socket:rpc.sock}'".to_owned(),
                    socket: "rpc.sock",
                    client,
                    answer: "pong",
                }
            }
        }
    }

    fn fixture(&mut self, name: &str, options: &str) -> Result {
        self.run(&format!(
            "proc register {{name: {name}, exec: [$unixd {options} '{{socket:rpc.sock}}'], sockets: [rpc.sock], \
             stop: {{timeout: 2sec}}}}"
        ))?;
        self.run(&format!("proc start {name}"))?;
        self.status(name, "running")
    }

    /// Shows a command and what it gives.
    fn run(&mut self, command: &str) -> Result<String> {
        self.say(&format!("> {command}"));
        let color = if self.color { "$env.config.use_ansi_coloring = true; " } else { "" };
        let unixd = self.world.unixd();
        let script = format!("let unixd = '{unixd}'; {color}{command} | table --width 130 --index false");
        let ran = self.world.nu(&script)?.success()?;
        if !ran.stdout.is_empty() {
            self.say(ran.stdout.trim_end());
        }
        Ok(ran.stdout)
    }

    fn ask(&mut self, hero: &Hero) -> Result {
        let answer = self.run(&hero.client)?;
        ensure!(answer.contains(hero.answer), "the client got {answer:?}");
        Ok(())
    }

    fn verdict(&mut self, name: &str, verdict: &str) -> Result {
        self.run(&format!("proc socket-check {name} | select socket verdict pid reason"))?;
        let rows = self.world.rpc("socket.check", serde_json::json!({"name": name}))?;
        for row in rows.rows()? {
            ensure!(row.text("verdict")? == verdict, "{verdict} was to be seen: {row}");
        }
        Ok(())
    }

    fn status(&self, name: &str, status: &str) -> Result {
        self.world.wait_status(name, status, SOON).map(drop)
    }

    /// Removes the file with Nushell, while another thread looks how long after that a client of the daemon sees it.
    fn remove(&mut self, path: &Path) -> Result {
        let world = self.world;
        let row = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                wait_until(SOON, "the file is gone", || !path.exists())?;
                let gone = Instant::now();
                let row = world.wait_status("web", "failed", SOON)?;
                Ok((gone.elapsed(), row))
            });
            self.run(&format!("rm {}", path.display()))?;
            watch.join().unwrap_or_else(|_| Err(Fault::new("the watching thread panicked")))
        })?;
        let (took, row) = row;
        self.say(&format!(
            "Seen within {:.0} ms: {}",
            took.as_secs_f64() * 1e3 + 0.5,
            row.text("health_reason")?
        ));
        Ok(())
    }

    fn say(&mut self, words: &str) {
        if words.starts_with("# ") && !words.starts_with("# (") {
            println!();
            if self.recorded {
                self.told.push('\n');
            }
        }
        println!("{words}");
        if self.recorded {
            self.told.push_str(words);
            self.told.push('\n');
        }
    }
}

/// Replaces what lies between the markers of a file.
fn put_between_markers(file: &PathBuf, told: &str) -> Result {
    let text = fs::read_to_string(file).context(file.display())?;
    let missing = || format!("{} has no lines {} and {}", file.display(), MARKERS.0, MARKERS.1);
    let (before, rest) = text.split_once(MARKERS.0).context(missing())?;
    let (_, after) = rest.split_once(MARKERS.1).context(missing())?;
    let told = told.trim();
    fs::write(file, format!("{before}{}\n```text\n{told}\n```\n{}{after}", MARKERS.0, MARKERS.1))
        .context(file.display())
}
