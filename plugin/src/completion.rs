//! What Tab offers: the names of services with how each is, sockets by path, spec files, and what a flag may hold.
//!
//! Nushell waits for the answer with the line in hand, so the daemon has [`DEADLINE`], and where it does not answer in time,
//! or none runs, nothing is offered. None is started for it.

use std::path::Path;
use std::time::{Duration, Instant};

use nu_plugin::{DynamicCompletionCall, EngineInterface};
use nu_protocol::ast::Expr;
use nu_protocol::engine::ArgType;
use nu_protocol::{DynamicSuggestion, Span, SuggestionKind, Type};
use serde::de::DeserializeOwned;
use serde_json::json;
use shimd_api::Client;
use shimd_api::wire::{ServiceRow, SocketRow};

use crate::config::Config;
use crate::place;

/// How long the daemon may take, in all.
const DEADLINE: Duration = Duration::from_millis(40);

/// No more of a folder's entries are looked at.
const ENTRIES: usize = 10_000;

/// What the arguments of a command are.
#[derive(Debug, Clone, Copy)]
pub enum Arguments {
    /// Services.
    Services,
    /// Services, and their sockets by path.
    Sockets,
    /// A spec, or the file that holds one.
    Spec,
}

/// What is offered for an argument; `None` leaves it to Nushell, which knows of files.
pub fn offer(
    engine: &EngineInterface,
    call: &DynamicCompletionCall,
    argument: &ArgType,
    arguments: Arguments,
) -> Option<Vec<DynamicSuggestion>> {
    let flag = match argument {
        ArgType::Positional(_) => {
            let mut offered = match arguments {
                Arguments::Spec => return specs(engine, call),
                Arguments::Services => Asked::now(engine).map(Asked::services),
                Arguments::Sockets => Asked::now(engine).map(Asked::sockets),
            }
            .unwrap_or_default();
            let given = others(call);
            offered.retain(|offered| !given.contains(&offered.value.as_str()));
            return Some(offered);
        }
        ArgType::Flag(flag) => flag,
    };
    let values: &[&str] = match flag.as_ref() {
        "since" => &["10min", "1hr", "1day", "1wk"],
        "lines" | "limit" => &["10", "100", "1000"],
        _ => &[],
    };
    Some(values.iter().map(|value| offered(value, String::new())).collect())
}

/// The words that stand in the line already, but for the one at the cursor.
fn others(call: &DynamicCompletionCall) -> Vec<&str> {
    let is_at_cursor = |span: Span| (span.start..=span.end).contains(&call.pos);
    let others = call.call.positional_iter().filter(|argument| !is_at_cursor(argument.span));
    others
        .filter_map(|argument| match &argument.expr {
            Expr::String(word) => Some(word.as_str()),
            _ => None,
        })
        .collect()
}

/// The daemon, as long as it answers in time.
struct Asked {
    client: Client,
    until: Instant,
}

impl Asked {
    fn now(engine: &EngineInterface) -> Option<Asked> {
        let until = Instant::now() + DEADLINE;
        let config = Config::of(engine, Span::unknown()).ok()?;
        let socket = place::home(engine, &config).ok()?.control_socket();
        let client = Client::connect_unless(&socket, DEADLINE, &|| false).ok()?;
        Some(Asked { client, until })
    }

    /// The services, in the daemon's order.
    fn services(mut self) -> Vec<DynamicSuggestion> {
        self.rows("service.list").iter().map(service).collect()
    }

    /// The services, and their sockets.
    fn sockets(mut self) -> Vec<DynamicSuggestion> {
        let services: Vec<ServiceRow> = self.rows("service.list");
        let sockets: Vec<SocketRow> = self.rows("socket.check");
        services.iter().map(service).chain(sockets.iter().map(socket)).collect()
    }

    fn rows<T: DeserializeOwned>(&mut self, method: &str) -> Vec<T> {
        let left = self.until.saturating_duration_since(Instant::now());
        let rows = self.client.call(method, json!({}), left, &mut |_| {}, &|| false);
        rows.ok().and_then(|rows| serde_json::from_value(rows).ok()).unwrap_or_default()
    }
}

fn service(row: &ServiceRow) -> DynamicSuggestion {
    let description = match &row.health_reason {
        Some(reason) => format!("{}: {reason}", row.status),
        None => row.status.to_string(),
    };
    offered(&row.name, description)
}

fn socket(row: &SocketRow) -> DynamicSuggestion {
    let service = row.service.as_deref().unwrap_or_default();
    offered(&row.path, format!("{}: {service}", row.verdict))
}

fn offered(value: &str, description: String) -> DynamicSuggestion {
    DynamicSuggestion {
        value: value.to_owned(),
        description: Some(description).filter(|description| !description.is_empty()),
        kind: Some(SuggestionKind::Value(Type::String)),
        ..DynamicSuggestion::default()
    }
}

/// Spec files and folders that go on from the path that stands in the line.
fn specs(engine: &EngineInterface, call: &DynamicCompletionCall) -> Option<Vec<DynamicSuggestion>> {
    let given = match call.call.positional_iter().next().map(|argument| &argument.expr) {
        None => "",
        Some(
            Expr::Filepath(path, _) | Expr::String(path) | Expr::RawString(path) | Expr::GlobPattern(path, _),
        ) => path,
        // A record, a variable.
        Some(_) => return None,
    };
    // As it stands in the line, so that what is offered goes on from it.
    let folder = given.rfind('/').map_or("", |slash| &given[..=slash]);
    let mut offered: Vec<DynamicSuggestion> =
        std::fs::read_dir(place::path(engine, if folder.is_empty() { "." } else { folder }))
            .ok()?
            .take(ENTRIES)
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name().into_string().ok()?;
                // Hidden ones only if asked for.
                (!name.starts_with('.') || given.ends_with('.')).then_some(())?;
                file(folder, &name, entry.path().is_dir())
            })
            .collect();
    offered.sort_by(|one, other| one.value.cmp(&other.value));
    Some(offered)
}

fn file(folder: &str, name: &str, is_folder: bool) -> Option<DynamicSuggestion> {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    let is_spec = matches!(extension, Some("json" | "nuon"));
    if !is_folder && !is_spec {
        return None;
    }
    let path = format!("{folder}{name}{}", if is_folder { "/" } else { "" });
    // Within backticks Nushell takes any of these as it is.
    let is_plain = |letter: char| letter.is_alphanumeric() || "/._-+~@%,=".contains(letter);
    Some(DynamicSuggestion {
        value: if path.chars().all(is_plain) { path } else { format!("`{path}`") },
        kind: Some(if is_folder { SuggestionKind::Directory } else { SuggestionKind::File }),
        append_whitespace: !is_folder,
        ..DynamicSuggestion::default()
    })
}

/// The method of a command whose arguments are these.
#[macro_export]
macro_rules! completes {
    ($arguments:ident) => {
        #[expect(deprecated, reason = "Nushell calls this interface experimental")]
        fn get_dynamic_completion(
            &self,
            _: &Proc,
            engine: &EngineInterface,
            call: nu_plugin::DynamicCompletionCall,
            argument: nu_protocol::engine::ArgType,
            _: nu_protocol::engine::ExperimentalMarker,
        ) -> Option<Vec<nu_protocol::DynamicSuggestion>> {
            $crate::completion::offer(engine, &call, &argument, $crate::completion::Arguments::$arguments)
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spec_files_and_folders_only() {
        let value = |name, is_folder| file("a/", name, is_folder).map(|offered| offered.value);
        assert_eq!(value("web.nuon", false).as_deref(), Some("a/web.nuon"));
        assert_eq!(value("web.json", false).as_deref(), Some("a/web.json"));
        assert_eq!(value("my web.json", false).as_deref(), Some("`a/my web.json`"));
        assert_eq!(value("sub", true).as_deref(), Some("a/sub/"));
        assert_eq!(value("web.toml", false), None);
        assert_eq!(value("json", false), None);
    }
}
