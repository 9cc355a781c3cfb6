//! `service.set`: specs checked against each other and against what is registered, and taken once they are stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use shimd_api::graph;
use shimd_api::rpc::RpcError;
use shimd_api::spec::{Spec, SpecError};
use shimd_api::wire::ChangeRow;
use tokio::sync::oneshot;

use super::commands::{Reply, answer, parse, value};
use super::service::Service;
use super::socket::declared;
use super::{Message, Supervisor};
use crate::core::machine::Machine;
use crate::store::Write;
use crate::sys::users;

#[derive(Deserialize)]
struct SetParams {
    spec: Option<Box<RawValue>>,
    specs: Option<Vec<Box<RawValue>>>,
}

impl Supervisor {
    /// `service.set`: all of the specs, or none.
    pub(super) fn set(&mut self, params: &RawValue, reply: Reply) {
        let result = parse::<SetParams>(params).and_then(|given| {
            let all: Vec<_> = given.spec.into_iter().chain(given.specs.into_iter().flatten()).collect();
            if all.is_empty() {
                return Err(RpcError::invalid_params("spec: give a spec, or specs: a list of them"));
            }
            self.accept(&all)
        });
        let specs = match result {
            Ok(specs) => specs,
            Err(e) => return answer(reply, Err(e)),
        };
        let mut rows = Vec::new();
        let mut acks = Vec::new();
        let mut changed = Vec::new();
        for (spec, json) in specs {
            let old = self.services.get(spec.name.as_str());
            let change = match old {
                None => "created",
                Some(s) if says_the_same(&s.spec_json, &json) => "unchanged",
                Some(_) => "updated",
            };
            rows.push(ChangeRow { name: spec.name.clone(), change: change.to_owned() });
            if change != "unchanged" {
                acks.push(
                    self.store.submit(Write::Spec { name: spec.name.clone(), spec_json: json.to_string() }),
                );
                changed.push((spec, json));
            }
        }
        // The spec counts once it is in the store; a disk that is full changes nothing.
        let sender = self.sender.clone();
        tokio::spawn(async move {
            for ack in acks {
                if let Err(e) = ack.done().await {
                    return answer(
                        reply,
                        Err(RpcError::store(
                            e.to_string(),
                            "free disk space or make the folder writable, then say it again",
                        )),
                    );
                }
            }
            // Answered when a start that follows finds it.
            let (done, stored) = oneshot::channel();
            let _ = sender.send(Message::Stored(changed, done));
            let _ = stored.await;
            answer(reply, value(rows));
        });
    }

    /// Checks specs against each other and against what is registered.
    fn accept(&self, all: &[Box<RawValue>]) -> Result<Vec<(Spec, Arc<str>)>, RpcError> {
        let mut specs: Vec<(Spec, Arc<str>)> = Vec::new();
        let mut deps: BTreeMap<String, Vec<String>> =
            self.services.values().map(|s| (s.name.to_string(), s.spec.depends_on.clone())).collect();
        for raw in all {
            let spec = Spec::parse(raw.get()).map_err(RpcError::bad_spec)?;
            self.check_spec(&spec, &specs).map_err(|e| RpcError::bad_spec(e).of(&spec.name))?;
            deps.insert(spec.name.clone(), spec.depends_on.clone());
            specs.push((spec, Arc::from(raw.get())));
        }
        for (spec, _) in &specs {
            if let Err(cycle) = graph::dependency_order(&deps, std::slice::from_ref(&spec.name)) {
                return Err(RpcError::bad_spec(SpecError {
                    field: "depends_on".into(),
                    problem: format!("the services wait for each other: {}", cycle.path.join(" -> ")),
                    fix: "remove one of these dependencies".into(),
                }));
            }
        }
        Ok(specs)
    }

    fn check_spec(&self, spec: &Spec, beside: &[(Spec, Arc<str>)]) -> Result<(), SpecError> {
        let bad = |field: String, problem: String, fix: &str| {
            Err(SpecError { field, problem, fix: fix.to_owned() })
        };
        if beside.iter().any(|(other, _)| other.name == spec.name) {
            let problem = format!("two of the specs are called {}", spec.name);
            return bad("name".into(), problem, "give one spec for each service");
        }
        spec.check_placed(&self.root)?;
        for (i, socket) in spec.sockets.iter().enumerate() {
            for (j, client) in socket.clients.iter().enumerate() {
                users::peer(client)
                    .map_err(|e| SpecError::new(format!("sockets[{i}].clients[{j}]"), e.problem, e.help))?;
            }
            let path = spec.socket_path(&self.root, socket);
            let registered = self.services.values().filter(|s| *s.name != *spec.name).map(|s| &*s.spec);
            let other = registered.chain(beside.iter().map(|(s, _)| s)).find(|other| {
                other.name != spec.name
                    && other.sockets.iter().any(|o| other.socket_path(&self.root, o) == path)
            });
            if let Some(other) = other {
                return bad(
                    format!("sockets[{i}]"),
                    format!("{} is declared by the service {} already", path.display(), other.name),
                    "give each service a socket path of its own, or unregister the other",
                );
            }
        }
        users::resolve(spec.user.as_deref(), spec.group.as_deref())
            .map_err(|e| SpecError::new(e.field, e.problem, e.help))?;
        crate::sys::program::check(spec, &self.root)
    }

    /// A spec is in the store: it counts from now.
    pub(super) fn stored(&mut self, specs: Vec<(Spec, Arc<str>)>) {
        for (spec, json) in specs {
            let spec = Arc::new(spec);
            match self.services.get_mut(spec.name.as_str()) {
                Some(service) => {
                    service.spec = spec.clone();
                    service.spec_json = json;
                    if service.instance.is_none() {
                        let sockets = declared(&spec, &self.root, &service.sockets);
                        let before = std::mem::replace(&mut service.sockets, sockets);
                        let name = service.name.clone();
                        self.record_undeclared(&name, &before);
                    }
                }
                None => {
                    let service = Service::new(spec.clone(), json, Machine::new(), &self.root);
                    self.services.insert(service.name.clone(), service);
                }
            }
            self.dirty.insert(Arc::from(spec.name.as_str()), None);
        }
        self.index_dependents();
        self.watch_changed = true;
    }
}

/// Spaces and line ends between the words of a spec change nothing.
fn says_the_same(one: &str, other: &str) -> bool {
    let parsed = |text| serde_json::from_str::<serde_json::Value>(text).ok();
    one == other || parsed(one).is_some_and(|one| Some(one) == parsed(other))
}
