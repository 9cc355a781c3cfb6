//! JSON-RPC 2.0 as the control socket speaks it: one message a line (or an HTTP body).
//!
//! An error's `data.kind` is the contract's name for it ([`kind`]); its `data.help` says what to do next.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::spec::SpecError;

/// The codes of JSON-RPC 2.0, and the one for all errors of `shimd`'s own.
pub mod code {
    /// The message is not JSON.
    pub const PARSE: i64 = -32700;
    /// The message is JSON, and no request.
    pub const INVALID_REQUEST: i64 = -32600;
    /// There is no such method.
    pub const NO_METHOD: i64 = -32601;
    /// The method's params are not as it needs them.
    pub const INVALID_PARAMS: i64 = -32602;
    /// The daemon failed in a way that it should not.
    pub const INTERNAL: i64 = -32603;
    /// Every error that has a kind of the contract.
    pub const APP: i64 = -32000;
}

/// The values of `data.kind`.
pub mod kind {
    /// No daemon answers.
    pub const NO_DAEMON: &str = "no_daemon";
    /// No service of this name is registered.
    pub const UNKNOWN_SERVICE: &str = "unknown_service";
    /// A field of a spec is wrong.
    pub const BAD_SPEC: &str = "bad_spec";
    /// It took longer than it may.
    pub const TIMEOUT: &str = "timeout";
    /// The peer or the daemon may not do this.
    pub const DENIED: &str = "denied";
    /// The daemon is of another version than its client.
    pub const VERSION: &str = "version";
    /// A gapless restart was asked for, and the service's sockets allow none.
    pub const NOT_GAPLESS: &str = "not_gapless";
    /// It was tried and did not work.
    pub const FAILED: &str = "failed";
    /// Another request is at work on the service, or too many clients are connected.
    pub const BUSY: &str = "busy";
    /// The message is over the limit.
    pub const TOO_LARGE: &str = "too_large";
    /// The store cannot be read or written.
    pub const STORE: &str = "store";
    /// A fault of the daemon.
    pub const INTERNAL: &str = "internal";
}

/// A message that the daemon sends by itself, such as `progress`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    /// `2.0`.
    pub jsonrpc: String,
    /// What it tells.
    pub method: String,
    /// Its content.
    pub params: Value,
}

impl Notification {
    /// A notification.
    pub fn new(method: &str, params: Value) -> Notification {
        Notification { jsonrpc: "2.0".into(), method: method.into(), params }
    }
}

/// A field that is there is `Some`, also where it holds `null`.
pub(crate) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// `None` for a value of another shape.
fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<ErrorData>>, D::Error> {
    Value::deserialize(deserializer).map(|value| serde_json::from_value(value).ok())
}

/// An error as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// A value of [`code`].
    pub code: i64,
    /// What is wrong, in words.
    pub message: String,
    /// More of it, for programs; what another server may put here is dropped.
    #[serde(default, deserialize_with = "known", skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<ErrorData>>,
}

/// What an error says beside its message.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ErrorData {
    /// A value of [`kind`].
    pub kind: String,
    /// The spec's field at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The service at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl RpcError {
    /// An error of a [`kind`], with what to do next.
    pub fn app(kind: &str, message: impl Into<String>, help: impl Into<String>) -> RpcError {
        let data = ErrorData { kind: kind.into(), help: Some(help.into()), ..ErrorData::default() };
        RpcError { code: code::APP, message: message.into(), data: Some(Box::new(data)) }
    }

    /// The same error, said of one service.
    pub fn of(mut self, name: impl Into<String>) -> RpcError {
        self.data.get_or_insert_default().name = Some(name.into());
        self
    }

    /// The message was not JSON.
    pub fn parse(problem: impl std::fmt::Display) -> RpcError {
        let error =
            RpcError::failed(format!("the message is not JSON: {problem}"), "send one JSON object a message");
        RpcError { code: code::PARSE, ..error }
    }

    /// The message was JSON and no request.
    pub fn invalid_request(problem: impl std::fmt::Display) -> RpcError {
        let help = r#"send {"jsonrpc": "2.0", "id": 1, "method": "rpc.discover"} to learn the methods"#;
        let error = RpcError::failed(format!("not a JSON-RPC 2.0 request: {problem}"), help);
        RpcError { code: code::INVALID_REQUEST, ..error }
    }

    /// There is no such method.
    pub fn no_method(method: &str) -> RpcError {
        let help = "rpc.discover lists the methods; a newer client needs a newer shimd";
        RpcError { code: code::NO_METHOD, ..RpcError::version(format!("no method {method:?}"), help) }
    }

    /// The params are not as the method needs them.
    pub fn invalid_params(problem: impl Into<String>) -> RpcError {
        let error = RpcError::failed(problem, "rpc.discover tells the params of each method");
        RpcError { code: code::INVALID_PARAMS, ..error }
    }

    /// A fault of the daemon.
    pub fn internal(problem: impl Into<String>) -> RpcError {
        let error =
            RpcError::app(kind::INTERNAL, problem, "see shimd.log in the daemon's home, and report it");
        RpcError { code: code::INTERNAL, ..error }
    }

    /// No service of this name is registered.
    pub fn unknown_service(name: &str, help: impl Into<String>) -> RpcError {
        RpcError::app(kind::UNKNOWN_SERVICE, format!("no service named {name:?}"), help).of(name)
    }

    /// A field of a spec is wrong.
    pub fn bad_spec(error: SpecError) -> RpcError {
        let mut rpc = RpcError::app(kind::BAD_SPEC, format!("{}: {}", error.field, error.problem), error.fix);
        rpc.data.get_or_insert_default().field = Some(error.field);
        rpc
    }

    /// It took longer than it may.
    pub fn timeout(message: impl Into<String>, help: impl Into<String>) -> RpcError {
        RpcError::app(kind::TIMEOUT, message, help)
    }

    /// The peer or the daemon may not do this.
    pub fn denied(message: impl Into<String>, help: impl Into<String>) -> RpcError {
        RpcError::app(kind::DENIED, message, help)
    }

    /// The daemon is of another version than its client.
    pub fn version(message: impl Into<String>, help: impl Into<String>) -> RpcError {
        RpcError::app(kind::VERSION, message, help)
    }

    /// No gapless restart is possible.
    pub fn not_gapless(message: impl Into<String>, help: impl Into<String>) -> RpcError {
        RpcError::app(kind::NOT_GAPLESS, message, help)
    }

    /// It was tried and did not work.
    pub fn failed(message: impl Into<String>, help: impl Into<String>) -> RpcError {
        RpcError::app(kind::FAILED, message, help)
    }

    /// Others are at work.
    pub fn busy(message: impl Into<String>, help: impl Into<String>) -> RpcError {
        RpcError::app(kind::BUSY, message, help)
    }

    /// A message of more than `limit` bytes.
    pub fn too_large(limit: usize) -> RpcError {
        let help = "register fewer services in one call, or shorten their specs";
        RpcError::app(kind::TOO_LARGE, format!("the message is over the limit of {limit} bytes"), help)
    }

    /// The store cannot be read or written.
    pub fn store(message: impl Into<String>, help: impl Into<String>) -> RpcError {
        RpcError::app(kind::STORE, message, help)
    }

    /// The kind, `failed` where the error names none.
    pub fn kind(&self) -> &str {
        self.data.as_ref().map_or(kind::FAILED, |data| &data.kind)
    }

    /// What to do next, where the error says it.
    pub fn help(&self) -> Option<&str> {
        self.data.as_ref()?.help.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_survives_the_wire_and_another_servers_is_read() {
        let error = RpcError::unknown_service("web", "register it");
        assert_eq!(serde_json::from_value::<RpcError>(json!(error)).unwrap(), error);
        let other = json!({"code": 1, "message": "no", "data": "text"});
        let other: RpcError = serde_json::from_value(other).unwrap();
        assert_eq!((other.kind(), other.help()), (kind::FAILED, None));
    }
}
