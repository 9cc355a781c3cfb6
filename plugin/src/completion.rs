//! What Tab offers: the names of services, with how each is.
//!
//! Nushell waits for the answer with the line in hand, so the daemon has [`DEADLINE`], and where it does not answer in time,
//! or none runs, nothing is offered. None is started for it.

use std::time::{Duration, Instant};

use nu_plugin::EngineInterface;
use nu_protocol::{DynamicSuggestion, Span, SuggestionKind};
use serde::de::DeserializeOwned;
use serde_json::json;
use shimd_api::Client;
use shimd_api::wire::{ServiceRow, SocketRow};

use crate::config::Config;
use crate::place;

/// How long the daemon may take, in all.
const DEADLINE: Duration = Duration::from_millis(40);

/// The services, in the daemon's order.
pub fn services(engine: &EngineInterface) -> Vec<DynamicSuggestion> {
    asked(engine, "service.list").unwrap_or_default().iter().map(suggestion).collect()
}

/// The services, and their sockets by path.
pub fn sockets(engine: &EngineInterface) -> Vec<DynamicSuggestion> {
    let rows: Vec<SocketRow> = asked(engine, "socket.check").unwrap_or_default();
    let mut all = services(engine);
    all.extend(rows.iter().map(|row| {
        let service = row.service.as_deref().unwrap_or_default();
        offered(&row.path, format!("{}: {service}", row.verdict))
    }));
    all
}

fn asked<T: DeserializeOwned>(engine: &EngineInterface, method: &str) -> Option<Vec<T>> {
    let until = Instant::now() + DEADLINE;
    let never = || false;
    let config = Config::of(engine, Span::unknown()).ok()?;
    let socket = place::home(engine, &config).ok()?.control_socket();
    let mut client = Client::connect_unless(&socket, DEADLINE, &never).ok()?;
    let left = until.saturating_duration_since(Instant::now());
    let rows = client.call(method, json!({}), left, &mut |_| {}, &never).ok()?;
    serde_json::from_value(rows).ok()
}

fn suggestion(row: &ServiceRow) -> DynamicSuggestion {
    let description = match &row.health_reason {
        Some(reason) => format!("{}: {reason}", row.status),
        None => row.status.to_string(),
    };
    offered(&row.name, description)
}

fn offered(value: &str, description: String) -> DynamicSuggestion {
    DynamicSuggestion {
        value: value.to_owned(),
        description: Some(description),
        kind: Some(SuggestionKind::Value(nu_protocol::Type::String)),
        ..DynamicSuggestion::default()
    }
}

/// The method of a command whose arguments are services.
#[macro_export]
macro_rules! completes_services {
    () => {
        $crate::completes_services!(services);
    };
    ($what:ident) => {
        #[expect(deprecated, reason = "Nushell calls this interface experimental")]
        fn get_dynamic_completion(
            &self,
            _: &Proc,
            engine: &EngineInterface,
            _: nu_plugin::DynamicCompletionCall,
            argument: nu_protocol::engine::ArgType,
            _: nu_protocol::engine::ExperimentalMarker,
        ) -> Option<Vec<nu_protocol::DynamicSuggestion>> {
            match argument {
                nu_protocol::engine::ArgType::Positional(_) => Some($crate::completion::$what(engine)),
                nu_protocol::engine::ArgType::Flag(_) => None,
            }
        }
    };
}
