//! The methods of the control socket, as the supervisor answers them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use shimd_api::graph;
use shimd_api::rpc::RpcError;
use shimd_api::wire::{InstanceRow, Progress, ServiceRow, ShimInfo, SocketRow, StateRow, StatusRecord};
use socket_audit::Expect;
use tokio::sync::{mpsc, oneshot};

use super::activation::taken_over;
use super::clock::{nanos, rfc3339};
use super::events::Following;
use super::near::nearest;
use super::publish::is_gapless;
use super::service::Service;
use super::waiters::{Kind, Waiter};
use super::{Message, Supervisor};
use crate::core::machine::Event;
use crate::logs::Wanted;
use crate::server::News;
use crate::store::Store;

/// Lines of a log that are given where the caller does not say.
const LINES: usize = 100;

pub(super) type Reply = oneshot::Sender<Result<Box<RawValue>, RpcError>>;

/// One request.
pub struct Command {
    method: String,
    params: Box<RawValue>,
    progress: Option<mpsc::Sender<Progress>>,
    reply: Reply,
}

/// A shutdown under way.
pub struct Closing {
    reply: Option<Reply>,
    info: ShimInfo,
    waits: bool,
}

/// What the server calls.
#[derive(Clone)]
pub struct Handle {
    sender: mpsc::UnboundedSender<Message>,
    store: Store,
}

/// Methods that change something. Those that only look answer also while the disk hangs.
const CHANGES: [&str; 7] = [
    "service.set",
    "service.start",
    "service.stop",
    "service.restart",
    "service.reset_failed",
    "service.delete",
    "socket.heal",
];

impl Handle {
    /// A handle on the supervisor that reads this channel.
    pub fn new(sender: mpsc::UnboundedSender<Message>, store: Store) -> Handle {
        Handle { sender, store }
    }

    /// Begins a stream.
    pub async fn follow(&self, method: &str, params: &RawValue) -> Following {
        let (reply, answer) = oneshot::channel();
        let gone = || RpcError::internal("shimd is shutting down");
        let message = match method {
            "event.follow" => Message::Follow(params.to_owned(), reply),
            "log.stream" => Message::ReadLog(params.to_owned(), reply),
            _ => return Err(RpcError::no_method(method)),
        };
        self.sender.send(message).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Asks the supervisor's task. A change is answered once the store has what it left there, its events too: a daemon that
    /// is killed just after its answer takes none of it back.
    pub async fn ask(
        &self,
        method: &str,
        params: &RawValue,
        progress: Option<mpsc::Sender<Progress>>,
    ) -> Result<Box<RawValue>, RpcError> {
        let (reply, answer) = oneshot::channel();
        let command = Command { method: method.to_owned(), params: params.to_owned(), progress, reply };
        let gone = || RpcError::internal("shimd is shutting down");
        self.sender.send(Message::Command(command)).map_err(|_| gone())?;
        let answer = answer.await.map_err(|_| gone())?;
        if CHANGES.contains(&method) {
            self.store.settled().await;
        }
        answer
    }
}

#[derive(Deserialize, Default)]
struct Names {
    name: Option<String>,
    names: Option<Vec<String>>,
    #[serde(default)]
    clean: bool,
    #[serde(default)]
    gapless: bool,
    paths: Option<Vec<PathBuf>>,
    lines: Option<usize>,
    since: Option<u64>,
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    raw: bool,
    #[serde(default)]
    stop_services: bool,
}

pub(super) fn parse<T: DeserializeOwned>(params: &RawValue) -> Result<T, RpcError> {
    let text = if params.get() == "null" { "{}" } else { params.get() };
    serde_json::from_str(text).map_err(|e| RpcError::invalid_params(e.to_string()))
}

pub(super) fn value(rows: impl serde::Serialize) -> Result<Box<RawValue>, RpcError> {
    to_raw_value(&rows).map_err(|e| RpcError::internal(e.to_string()))
}

impl Supervisor {
    pub(super) fn on_command(&mut self, command: Command) {
        let Command { method, params, progress, reply } = command;
        if method == "service.set" {
            return self.set(&params, reply);
        }
        if method == "event.list" {
            return self.list_events(&params, reply);
        }
        let given = match parse::<Names>(&params) {
            Ok(given) => given,
            Err(e) => return answer(reply, Err(e)),
        };
        match method.as_str() {
            "service.start" => self.act(Kind::Start, &given, progress, reply),
            "service.stop" => self.act(Kind::Stop, &given, progress, reply),
            "service.delete" => self.act(Kind::Delete, &given, progress, reply),
            "service.restart" => {
                let kind = Kind::Restart { clean: given.clean, gapless: given.gapless };
                match self.not_gapless(&given) {
                    Ok(()) => self.act(kind, &given, progress, reply),
                    Err(e) => answer(reply, Err(e)),
                }
            }
            "service.logs" => self.tail(&given, reply),
            "socket.check" => self.check(given, reply),
            "socket.heal" => match self.named(&given) {
                Ok(names) => self.heal_on_demand(names, given.paths, reply),
                Err(e) => answer(reply, Err(e)),
            },
            "shim.shutdown" => self.shut_down(given.stop_services, reply),
            _ => {
                let result = self.look_up(&method, &given);
                answer(reply, result);
            }
        }
    }

    /// The methods that only look, and answer at once.
    fn look_up(&mut self, method: &str, given: &Names) -> Result<Box<RawValue>, RpcError> {
        match method {
            "service.list" => {
                let names = self.named_or_all(given)?;
                self.refresh(&names);
                let row = |n: &Arc<str>| self.services.get(n).map(|s| s.row(&self.root));
                value(names.iter().filter_map(row).collect::<Vec<ServiceRow>>())
            }
            "service.get" => {
                let service = self.service(&self.one(given)?)?;
                let spec: Value = serde_json::from_str(&service.spec_json)
                    .map_err(|e| RpcError::internal(format!("the stored spec: {e}")))?;
                value(json!({ "spec": spec, "spec_json": &*service.spec_json }))
            }
            "service.status" => {
                let name = self.one(given)?;
                self.audit_here(&name);
                self.settle_queue();
                value(self.status_record(self.service(&name)?))
            }
            "service.reset_failed" => {
                let names = self.named_or_all(given)?;
                for name in &names {
                    self.queue.push_back((name.clone(), Event::ResetFailed));
                }
                self.settle_queue();
                let row = |n: &Arc<str>| {
                    let status = self.services.get(n)?.machine.status();
                    Some(StateRow { name: n.to_string(), status })
                };
                value(names.iter().filter_map(row).collect::<Vec<_>>())
            }
            "shim.info" => value(self.info()),
            "shim.doctor" => value(self.doctor()),
            _ => Err(RpcError::no_method(method)),
        }
    }

    fn service(&self, name: &Arc<str>) -> Result<&Service, RpcError> {
        self.services.get(name).ok_or_else(|| self.unknown(name))
    }

    pub(super) fn unknown(&self, name: &str) -> RpcError {
        let help = match (nearest(name, self.services.keys()), self.services.len()) {
            (Some(near), _) => format!("did you mean {near}? proc list shows all"),
            (None, 0) => "no service is registered: proc register {name: …, exec: […]}".into(),
            (None, _) => "proc list shows the registered ones; proc register adds one".into(),
        };
        RpcError::unknown_service(name, help)
    }

    fn one(&self, given: &Names) -> Result<Arc<str>, RpcError> {
        match self.named(given)?.as_deref() {
            Some([one]) => Ok(one.clone()),
            _ => Err(RpcError::invalid_params("name: this method takes one name")),
        }
    }

    fn named_or_all(&self, given: &Names) -> Result<Vec<Arc<str>>, RpcError> {
        Ok(self.named(given)?.unwrap_or_else(|| self.services.keys().cloned().collect()))
    }

    /// The named services, each once; `None` where no name was given.
    fn named(&self, given: &Names) -> Result<Option<Vec<Arc<str>>>, RpcError> {
        if given.name.is_none() && given.names.is_none() {
            return Ok(None);
        }
        let mut found: Vec<Arc<str>> = Vec::new();
        for name in given.name.iter().chain(given.names.iter().flatten()) {
            let (key, _) = self.services.get_key_value(name.as_str()).ok_or_else(|| self.unknown(name))?;
            if !found.contains(key) {
                found.push(key.clone());
            }
        }
        Ok(Some(found))
    }

    pub(super) fn index_dependents(&mut self) {
        self.dependents.clear();
        for service in self.services.values() {
            for dependency in &service.spec.depends_on {
                self.dependents
                    .entry(Arc::from(dependency.as_str()))
                    .or_default()
                    .insert(service.name.clone());
            }
        }
        self.order_rollout();
    }

    /// The commands that wait for their outcome.
    fn act(&mut self, kind: Kind, given: &Names, progress: Option<mpsc::Sender<Progress>>, reply: Reply) {
        let names = match self.named(given) {
            Ok(Some(names)) => names,
            Ok(None) => {
                return answer(reply, Err(RpcError::invalid_params("name or names: say which services")));
            }
            Err(e) => return answer(reply, Err(e)),
        };
        self.refresh(&names);
        let shown = names.clone();
        let names = if kind == Kind::Start { self.with_dependencies(&names) } else { names };
        self.waiters.push(Waiter::new(kind, &names, &shown, &self.services, progress, reply));
        match kind {
            Kind::Start => self.start_all(names),
            Kind::Stop | Kind::Delete => self.roll_down(&names),
            Kind::Restart { clean, gapless } => self.roll(&names, clean, gapless),
        }
    }

    fn start_all(&mut self, names: Vec<Arc<str>>) {
        for name in names {
            if self.rollout.stops(&name) {
                // The last command counts.
                self.rollout.remove(&name);
            }
            if let Some(service) = self.services.get_mut(&name) {
                service.begin_command(Kind::Start);
                self.queue.push_back((name, Event::Start));
            }
        }
    }

    /// The services and all that they depend on, dependencies first.
    pub(super) fn with_dependencies(&self, names: &[Arc<str>]) -> Vec<Arc<str>> {
        let deps = self.services.values().map(|s| (s.name.to_string(), s.spec.depends_on.clone())).collect();
        let wanted: Vec<String> = names.iter().map(ToString::to_string).collect();
        match graph::dependency_order(&deps, &wanted) {
            Ok(order) => order
                .iter()
                .filter_map(|n| Some(self.services.get_key_value(n.as_str())?.0.clone()))
                .collect(),
            // A circle cannot be registered; were there one, each of its services says so when it waits.
            Err(_) => names.to_vec(),
        }
    }

    /// A gapless restart of these is refused where two instances would be after one name.
    fn not_gapless(&self, given: &Names) -> Result<(), RpcError> {
        if !given.gapless {
            return Ok(());
        }
        for name in self.named_or_all(given)? {
            let service = self.service(&name)?;
            if is_gapless(&service.spec) && is_gapless(service.live_spec()) {
                let Some(socket) = taken_over(&service.spec, service.live_spec(), &self.root) else {
                    continue;
                };
                let why = format!(
                    "{name}: {} has become activate, and the instance that runs has bound it (publish)",
                    socket.path
                );
                return Err(
                    RpcError::not_gapless(why, "restart it once without --gapless").of(name.to_string())
                );
            }
            let running = if is_gapless(&service.spec) { " of the instance that runs" } else { "" };
            let why = match service.spec.sockets.is_empty() {
                true => format!("{name}: a gapless restart needs sockets, and it declares none"),
                false => format!(
                    "{name}: a gapless restart needs all sockets in the mode publish or activate, and one{running} is bind"
                ),
            };
            let help = format!("proc restart --clean {name}");
            return Err(RpcError::not_gapless(why, help).of(name.to_string()));
        }
        Ok(())
    }

    fn tail(&self, given: &Names, reply: Reply) {
        let name = match self.one(given) {
            Ok(name) => name,
            Err(e) => return answer(reply, Err(e)),
        };
        let since = given.since.map(Duration::from_nanos);
        let lines = given.lines.unwrap_or(if since.is_some() { usize::MAX } else { LINES });
        let logs = self.logs.clone();
        self.clients.spawn_blocking(move || {
            let rows = logs.tail(&name, lines, since).map_err(|e| RpcError::internal(e.to_string()));
            answer(reply, rows.and_then(value));
        });
    }

    /// `log.stream`
    pub(super) fn read_log(&self, params: &RawValue, reply: oneshot::Sender<Following>) {
        let asked = parse::<Names>(params).and_then(|given| Ok((self.one(&given)?, given)));
        let (name, given) = match asked {
            Ok(asked) => asked,
            Err(e) => {
                let _ = reply.send(Err(e));
                return;
            }
        };
        let since = given.since.map(Duration::from_nanos);
        let lines = given.lines.or((since.is_none()).then_some(LINES));
        let wanted = Wanted { lines, since, follow: given.follow, raw: given.raw, most: None };
        let (out, stream) = mpsc::channel(1);
        let logs = self.logs.clone();
        self.clients.spawn(async move {
            let end = match logs.read(name.to_string(), wanted, &out).await {
                Ok(()) => News::Complete,
                Err(e) => News::Failed(RpcError::internal(e.to_string())),
            };
            // Nobody reads any more: nobody wants to know how it ended.
            let _ = out.send(end).await;
        });
        let _ = reply.send(Ok((RawValue::TRUE.to_owned(), stream)));
    }

    /// `socket.check`: what is true now, not what the last period saw.
    fn check(&mut self, given: Names, reply: Reply) {
        let names = match (&given.paths, self.named(&given)) {
            (Some(_), Ok(None)) => Vec::new(),
            (None, Ok(None)) => self.services.keys().cloned().collect(),
            (_, Ok(Some(names))) => names,
            (_, Err(e)) => return answer(reply, Err(e)),
        };
        for name in &names {
            self.audit_here(name);
        }
        self.settle_queue();
        let mut rows: Vec<SocketRow> =
            names.iter().filter_map(|n| self.services.get(n)).flat_map(Service::socket_rows).collect();
        for path in given.paths.into_iter().flatten() {
            rows.push(self.check_path(path));
        }
        answer(reply, value(rows));
    }

    fn check_path(&mut self, path: PathBuf) -> SocketRow {
        let owner =
            self.services.values().find(|s| s.sockets.iter().any(|k| k.path == path)).map(|s| s.name.clone());
        if let Some(name) = owner {
            self.audit_here(&name);
            let rows = self.services.get(&name).map(Service::socket_rows).unwrap_or_default();
            if let Some(row) = rows.into_iter().find(|r| path.as_os_str() == r.path.as_str()) {
                return row;
            }
        }
        let finding = self.auditor.confirm(&Expect::path(path));
        crate::check::row(&finding.path.clone(), &finding)
    }

    fn status_record(&self, service: &Service) -> StatusRecord {
        let row = service.row(&self.root);
        StatusRecord {
            name: row.name,
            status: row.status,
            health_reason: row.health_reason,
            pid: row.pid,
            uptime: row.uptime,
            restarts: row.restarts,
            sockets_ok: row.sockets_ok,
            sockets: service.socket_rows(),
            spec: serde_json::from_str(&service.spec_json).unwrap_or(Value::Null),
            instance: service.instance.as_ref().map(|i| InstanceRow {
                generation: i.generation,
                pid: i.identity.pid,
                started: rfc3339(i.started),
                boot_id: i.identity.boot_id.clone(),
                cgroup: i.tree.cgroup().map(|c| c.display().to_string()),
                pids: i.tree.pids_now(),
            }),
        }
    }

    pub(super) fn info(&self) -> ShimInfo {
        ShimInfo {
            pid: std::process::id() as i32,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: nanos(self.began.elapsed()),
            services: self.services.len() as u64,
            socket: self.home.control_socket().display().to_string(),
            home: self.home.state.display().to_string(),
            socket_root: self.root.display().to_string(),
            troubles: self
                .troubles
                .values()
                .cloned()
                .chain(self.logs.troubles())
                .chain(self.store.trouble())
                .collect(),
        }
    }

    /// Services that are stopped with the daemon come up with it again: what was wanted stays wanted.
    fn shut_down(&mut self, stop_services: bool, reply: Reply) {
        let info = self.info();
        if stop_services {
            self.rollout.clear();
            let names: Vec<Arc<str>> = self.services.keys().cloned().collect();
            self.roll_down(&names);
        }
        self.closing = Some(Closing { reply: Some(reply), info, waits: stop_services });
    }

    /// Whether the task is to end now.
    pub(super) fn closed(&mut self) -> bool {
        let busy = |s: &Service| s.machine.has_instance() || s.machine.effect_in_flight();
        let Some(closing) = &mut self.closing else { return false };
        if closing.waits && self.services.values().any(busy) {
            return false;
        }
        if let Some(reply) = closing.reply.take() {
            let info = value(&closing.info);
            answer(reply, info);
        }
        if let Ok(cgroups) = &self.cgroups {
            cgroups.sweep();
        }
        true
    }
}

/// Answers; a client that has gone hears nothing, and nothing is lost by it.
pub(super) fn answer(reply: Reply, result: Result<Box<RawValue>, RpcError>) {
    let _ = reply.send(result);
}
