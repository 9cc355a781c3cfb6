//! What is under way when the daemon is killed.

use std::fs;

use serde_json::{Value, json};

use super::SERVICES;
use super::random::Random;
use crate::{Result, World, specs};

/// One service, and what may be so of it.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// What was registered last, or is being registered.
    pub spec: Value,
    /// It may be registered, or not; else it is.
    pub may_be_gone: bool,
    /// The notes of the specs that it may have.
    pub notes: Vec<u64>,
    /// Whether it is to run; `None` where a start or a stop was cut off.
    pub up: Option<bool>,
    /// Whether its sockets are published.
    pub published: bool,
}

/// All services: those that bind, publish, fork workers, unlink at their exit, and are started again by policy.
pub fn services(world: &World) -> Vec<Service> {
    (0..SERVICES).map(|number| service(world, number)).collect()
}

fn service(world: &World, number: usize) -> Service {
    let name = format!("s{number:02}");
    let options: &[&str] = match number % 5 {
        2 => &["--fork-workers", "1"],
        3 => &["--unlink-at-exit"],
        _ => &[],
    };
    let published = number % 5 == 1;
    let mut spec = specs::with(
        specs::unixd(world, &name, options),
        json!({"on_missing": "relink", "settle": "20ms", "note": 0}),
    );
    if published {
        spec = specs::with(spec, json!({"sockets": null}));
        spec = specs::with(spec, json!({"sockets": [{"path": "rpc.sock", "mode": "publish"}]}));
    }
    if number % 5 == 4 {
        spec = specs::with(spec, json!({"restart": {"policy": "on-failure", "delay": "10ms"}}));
    }
    Service { name, spec, may_be_gone: false, notes: vec![0], up: Some(true), published }
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
    /// A spec with another note.
    Change(u64),
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
            let deed = match random.below(10) {
                0 | 1 => Deed::Start,
                2 => Deed::Stop,
                3 => Deed::Restart,
                4 | 5 if services[at].published => Deed::Gapless,
                4 | 5 => Deed::Clean,
                6 | 7 => Deed::Lose,
                8 => Deed::Change(random.below(1 << 30) as u64),
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
                let spec = specs::with(service.spec.clone(), json!({"note": note}));
                world.rpc("service.set", json!({"spec": spec}))
            }
            Deed::Renew => {
                world.rpc("service.delete", name.clone())?;
                world.rpc("service.set", json!({"spec": service.spec}))?;
                world.rpc("service.start", name)
            }
        }
    }

    /// What may be so after it.
    pub fn may_have(self, service: &mut Service) {
        match self {
            Deed::Start | Deed::Stop => service.up = None,
            // A restart starts what was down.
            Deed::Restart | Deed::Clean | Deed::Gapless if service.up == Some(false) => service.up = None,
            Deed::Restart | Deed::Clean | Deed::Gapless | Deed::Lose => {}
            Deed::Change(note) => {
                service.notes.push(note);
                service.spec = specs::with(service.spec.clone(), json!({"note": note}));
            }
            Deed::Renew => (service.may_be_gone, service.up) = (true, None),
        }
    }
}
