//! What is under way when the daemon is killed.

use std::fs;

use serde_json::{Value, json};

use super::SERVICES;
use super::random::Random;
use crate::{Result, World, specs};

/// How a service's socket comes to its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The service binds it.
    Bind,
    /// Each instance binds a path of its own, which is put there.
    Publish,
    /// `shimd` binds it, and hands it over.
    Activate,
}

impl Mode {
    const ALL: [Mode; 3] = [Mode::Bind, Mode::Publish, Mode::Activate];

    fn name(self) -> &'static str {
        match self {
            Mode::Bind => "bind",
            Mode::Publish => "publish",
            Mode::Activate => "activate",
        }
    }
}

/// One service, and what may be so of it.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name.
    pub name: String,
    number: usize,
    /// What was registered last, or is being registered.
    pub spec: Value,
    /// It may be registered, or not; else it is.
    pub may_be_gone: bool,
    /// The specs that it may have.
    pub specs: Vec<Value>,
    /// It was taken out of the register, and set anew.
    pub renewed: bool,
    /// Whether it is to run; `None` where a start or a stop was cut off.
    pub up: Option<bool>,
}

/// All services: those that bind, publish, are activated, fork workers, unlink at their exit, and are started again by policy.
pub fn services(world: &World) -> Vec<Service> {
    let first = |number: usize| {
        let name = format!("s{number:02}");
        let spec = spec(world, number, &name, Mode::ALL[number % 3], 0);
        Service {
            name,
            number,
            spec: spec.clone(),
            may_be_gone: false,
            renewed: false,
            specs: vec![spec],
            up: Some(true),
        }
    };
    (0..SERVICES).map(first).collect()
}

/// The habits go by the number, the note tells one spec from the next.
fn spec(world: &World, number: usize, name: &str, mode: Mode, note: u64) -> Value {
    let mut options: Vec<&str> = match number % 5 {
        2 => vec!["--fork-workers", "1"],
        3 => vec!["--unlink-at-exit"],
        _ => Vec::new(),
    };
    if mode == Mode::Activate {
        options.push("--activated");
    }
    let mut spec = specs::with(
        specs::unixd(world, name, &options),
        json!({"on_missing": "relink", "settle": "20ms", "note": note, "env": {"NOTE": note.to_string()}}),
    );
    if let Some(fields) = spec.as_object_mut() {
        fields.insert("sockets".to_owned(), json!([{"path": "rpc.sock", "mode": mode.name()}]));
    }
    if number % 5 == 4 {
        spec = specs::with(spec, json!({"restart": {"policy": "on-failure", "delay": "10ms"}}));
    }
    spec
}

impl Service {
    /// How its socket is to come to its path.
    pub fn mode(&self) -> Mode {
        let mode = self.spec.pointer("/sockets/0/mode").and_then(Value::as_str);
        Mode::ALL.into_iter().find(|known| Some(known.name()) == mode).unwrap_or(Mode::Bind)
    }

    /// The same service with another spec.
    fn changed(&self, world: &World, mode: Mode, note: u64) -> Value {
        spec(world, self.number, &self.name, mode, note)
    }
}

/// Something that is done to one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// `service.start`.
    Start,
    /// `service.stop`.
    Stop,
    /// `service.restart`.
    Restart,
    /// The same with `clean`.
    Clean,
    /// The same with `gapless`.
    Gapless,
    /// Its dentry is removed, to be put back.
    Lose,
    /// A spec with another note and environment, for the next start.
    Change(u64),
    /// A spec with another mode of the socket, and a restart into it.
    Mode(Mode, u64),
    /// Out of the register, and into it again.
    Renew,
}

impl Deed {
    /// Up to three, each of another service; none in one of eight rounds.
    pub fn some(random: &mut Random, services: &[Service]) -> Vec<(usize, Deed)> {
        let mut deeds: Vec<(usize, Deed)> = Vec::new();
        if random.below(8) == 0 {
            return deeds;
        }
        for _ in 0..=random.below(3) {
            let at = random.below(services.len());
            let note = random.below(1 << 30) as u64;
            let deed = match random.below(12) {
                0 | 1 => Deed::Start,
                2 => Deed::Stop,
                3 => Deed::Restart,
                4 | 5 if services[at].mode() != Mode::Bind => Deed::Gapless,
                4 | 5 => Deed::Clean,
                6 | 7 => Deed::Lose,
                8 => Deed::Change(note),
                9 | 10 => Deed::Mode(Mode::ALL[random.below(3)], note),
                _ => Deed::Renew,
            };
            if deeds.iter().all(|(other, _)| *other != at) {
                deeds.push((at, deed));
            }
        }
        deeds
    }

    /// Does it, as far as the daemon lives.
    pub fn is_done(self, world: &World, service: &Service) -> Result<Value> {
        let name = json!({"name": service.name});
        match self {
            Deed::Start => world.rpc("service.start", name),
            Deed::Stop => world.rpc("service.stop", name),
            Deed::Restart => world.rpc("service.restart", name),
            Deed::Clean => world.rpc("service.restart", json!({"name": service.name, "clean": true})),
            Deed::Gapless => world.rpc("service.restart", json!({"name": service.name, "gapless": true})),
            Deed::Lose => {
                fs::remove_file(world.socket(&service.name, "rpc.sock"))?;
                Ok(Value::Null)
            }
            Deed::Change(note) => {
                let spec = service.changed(world, service.mode(), note);
                world.rpc("service.set", json!({"spec": spec}))
            }
            Deed::Mode(mode, note) => {
                let spec = service.changed(world, mode, note);
                world.rpc("service.set", json!({"spec": spec}))?;
                world.rpc("service.restart", json!({"name": service.name, "clean": true}))
            }
            Deed::Renew => {
                world.rpc("service.delete", name.clone())?;
                world.rpc("service.set", json!({"spec": service.spec}))?;
                world.rpc("service.start", name)
            }
        }
    }

    /// The same where modes are to stay: only the note changes.
    pub fn in_its_mode(self) -> Deed {
        match self {
            Deed::Mode(_, note) => Deed::Change(note),
            deed => deed,
        }
    }

    /// What may be so after it. What was `answered` for is no longer in doubt: the answer came before the kill.
    pub fn may_have(self, world: &World, service: &mut Service, answered: bool) {
        match self {
            Deed::Start | Deed::Restart | Deed::Clean if answered => service.up = Some(true),
            Deed::Stop if answered => service.up = Some(false),
            Deed::Start | Deed::Stop => service.up = None,
            // A restart starts what was down; whether it may be gapless is the daemon's to say.
            Deed::Restart | Deed::Clean | Deed::Gapless if service.up == Some(false) => service.up = None,
            Deed::Restart | Deed::Clean | Deed::Gapless | Deed::Lose => {}
            Deed::Change(note) => service.may_become(service.changed(world, service.mode(), note), answered),
            Deed::Mode(mode, note) => {
                service.may_become(service.changed(world, mode, note), answered);
                service.up = if answered { Some(true) } else { service.up.filter(|up| *up) };
            }
            Deed::Renew => {
                service.may_be_gone = !answered;
                service.renewed = true;
                service.up = answered.then_some(true);
            }
        }
    }
}

impl Service {
    fn may_become(&mut self, spec: Value, surely: bool) {
        if surely {
            self.specs.clear();
        }
        self.specs.push(spec.clone());
        self.spec = spec;
    }
}
