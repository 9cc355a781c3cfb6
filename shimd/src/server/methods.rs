//! The methods: the one table from which calls are checked and the OpenRPC document is made.
//!
//! Params are an object. A param that is null counts as left out; one that the method does not know is an error, so
//! that a slip of the pen (`nmae`) is not taken for a call without a name.

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use shimd_api::rpc::{RpcError, kind};

use super::schema::Type;

/// A method of the control socket.
pub(super) struct Method {
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    pub(super) params: &'static [Param],
    pub(super) names: Names,
    pub(super) result: (&'static str, Type),
    /// Values of `data.kind` that a caller should be ready for.
    pub(super) errors: &'static [&'static str],
}

/// A param.
pub(super) struct Param {
    pub(super) name: &'static str,
    pub(super) of: Type,
    pub(super) about: &'static str,
}

/// Which params have to be given.
#[derive(Clone, Copy)]
pub(super) enum Names {
    /// No params have to be given.
    Free,
    /// This one has to be given.
    Needs(&'static str),
    /// Exactly one of the two.
    OneOf(&'static str, &'static str),
    /// One of the two, or neither.
    AtMostOne(&'static str, &'static str),
}

const NAME: Param = Param { name: "name", of: Type::Text, about: "a service" };
const NAMES: Param = Param { name: "names", of: Type::Texts, about: "services" };

const SINCE: Param =
    Param { name: "since", of: Type::Nanoseconds, about: "past events, so many nanoseconds back from now" };
const AFTER: Param = Param { name: "after", of: Type::Count, about: "past events, after the one of this id" };
const KINDS: Param = Param { name: "kinds", of: Type::EventKinds, about: "events of these kinds alone" };

const LINES: Param =
    Param { name: "lines", of: Type::Count, about: "how many lines of the past, the last ones" };
const LINES_SINCE: Param =
    Param { name: "since", of: Type::Nanoseconds, about: "past lines, so many nanoseconds back from now" };

/// What every method takes.
pub(super) const PROGRESS: Param = Param {
    name: "progress",
    of: Type::Bool,
    about: "send a progress notification about once a second until the answer (lines only, not over HTTP)",
};

const ONE_OR_MORE: &[Param] = &[NAME, NAMES];

/// Every method.
pub(super) const METHODS: &[Method] = &[
    Method {
        name: "service.set",
        summary: "Register services, or change their specs; all or none",
        params: &[
            Param { name: "spec", of: Type::Spec, about: "a spec" },
            Param { name: "specs", of: Type::Specs, about: "specs" },
        ],
        names: Names::OneOf("spec", "specs"),
        result: ("changes", Type::Records("ChangeRow")),
        errors: &[kind::BAD_SPEC, kind::STORE],
    },
    Method {
        name: "service.get",
        summary: "A service's spec as it was given",
        params: &[NAME],
        names: Names::Needs("name"),
        result: ("spec", Type::Record("SpecRecord")),
        errors: &[kind::UNKNOWN_SERVICE],
    },
    Method {
        name: "service.list",
        summary: "The services and their states",
        params: ONE_OR_MORE,
        names: Names::AtMostOne("name", "names"),
        result: ("services", Type::Records("ServiceRow")),
        errors: &[kind::UNKNOWN_SERVICE],
    },
    Method {
        name: "service.status",
        summary: "All that is known of one service",
        params: &[NAME],
        names: Names::Needs("name"),
        result: ("status", Type::Record("StatusRecord")),
        errors: &[kind::UNKNOWN_SERVICE],
    },
    Method {
        name: "service.start",
        summary: "Start services, what they depend on first; answers when they are up or failed",
        params: ONE_OR_MORE,
        names: Names::OneOf("name", "names"),
        result: ("services", Type::Records("ActionRow")),
        errors: &[kind::UNKNOWN_SERVICE, kind::BAD_SPEC, kind::BUSY],
    },
    Method {
        name: "service.stop",
        summary: "Stop services; answers when their process trees are gone",
        params: ONE_OR_MORE,
        names: Names::OneOf("name", "names"),
        result: ("services", Type::Records("ActionRow")),
        errors: &[kind::UNKNOWN_SERVICE, kind::BUSY],
    },
    Method {
        name: "service.restart",
        summary: "Stop and start services; answers when every declared socket is ok, or the service failed",
        params: &[
            NAME,
            NAMES,
            Param {
                name: "clean",
                of: Type::Bool,
                about: "end whoever else listens, remove stale dentries first",
            },
            Param { name: "gapless", of: Type::Bool, about: "no client sees a refusal or a missing file" },
        ],
        names: Names::OneOf("name", "names"),
        result: ("services", Type::Records("RestartRow")),
        errors: &[kind::UNKNOWN_SERVICE, kind::NOT_GAPLESS, kind::BUSY],
    },
    Method {
        name: "service.reset_failed",
        summary: "Clear the failed state and the count of starts",
        params: ONE_OR_MORE,
        names: Names::OneOf("name", "names"),
        result: ("services", Type::Records("StateRow")),
        errors: &[kind::UNKNOWN_SERVICE],
    },
    Method {
        name: "service.delete",
        summary: "Stop services and forget them",
        params: ONE_OR_MORE,
        names: Names::OneOf("name", "names"),
        result: ("changes", Type::Records("ChangeRow")),
        errors: &[kind::UNKNOWN_SERVICE, kind::STORE],
    },
    Method {
        name: "service.logs",
        summary: "The last lines that a service wrote",
        params: &[NAME, LINES, LINES_SINCE],
        names: Names::Needs("name"),
        result: ("lines", Type::Records("LogRow")),
        errors: &[kind::UNKNOWN_SERVICE],
    },
    Method {
        name: LOG_STREAM,
        summary: "What a service wrote, and with follow what it writes, as log notifications on this connection after \
            the answer; lines only, not over HTTP nor in a batch",
        params: &[
            NAME,
            LINES,
            LINES_SINCE,
            Param { name: "follow", of: Type::Bool, about: "go on with what is written from now on" },
            Param { name: "raw", of: Type::Bool, about: "the bytes as they were written, not rows" },
        ],
        names: Names::Needs("name"),
        result: ("begun", Type::Bool),
        errors: &[kind::UNKNOWN_SERVICE, kind::BUSY],
    },
    Method {
        name: "socket.check",
        summary: "Audit the declared sockets, of some services or all, or any paths; changes nothing",
        params: &[NAME, NAMES, Param { name: "paths", of: Type::Texts, about: "absolute paths" }],
        names: Names::AtMostOne("name", "names"),
        result: ("sockets", Type::Records("SocketRow")),
        errors: &[kind::UNKNOWN_SERVICE],
    },
    Method {
        name: "socket.heal",
        summary: "Put lost sockets back: link their file back, else bridge to the listener; of services or any paths",
        params: &[NAME, NAMES, Param { name: "paths", of: Type::Texts, about: "absolute paths" }],
        names: Names::AtMostOne("name", "names"),
        result: ("sockets", Type::Records("HealRow")),
        errors: &[kind::UNKNOWN_SERVICE],
    },
    Method {
        name: "event.list",
        summary: "What happened, the oldest first",
        params: &[
            NAME,
            NAMES,
            SINCE,
            AFTER,
            KINDS,
            Param { name: "limit", of: Type::Count, about: "at most so many, the last ones" },
        ],
        names: Names::AtMostOne("name", "names"),
        result: ("events", Type::Records("EventRow")),
        errors: &[kind::UNKNOWN_SERVICE, kind::STORE],
    },
    Method {
        name: FOLLOW,
        summary: "What happens from now on, as event notifications on this connection after the answer, which holds \
            the past events asked for by since or after; lines only, not over HTTP nor in a batch",
        params: &[NAME, NAMES, SINCE, AFTER, KINDS],
        names: Names::AtMostOne("name", "names"),
        result: ("events", Type::Records("EventRow")),
        errors: &[kind::UNKNOWN_SERVICE, kind::STORE, kind::BUSY],
    },
    Method {
        name: "shim.doctor",
        summary: "What this machine and user let the daemon do",
        params: &[],
        names: Names::Free,
        result: ("checks", Type::Records("DoctorRow")),
        errors: &[],
    },
    Method {
        name: "shim.info",
        summary: "The daemon itself",
        params: &[],
        names: Names::Free,
        result: ("shim", Type::Record("ShimInfo")),
        errors: &[],
    },
    Method {
        name: "shim.shutdown",
        summary: "End the daemon; services live on unless they are to be stopped",
        params: &[Param { name: "stop_services", of: Type::Bool, about: "stop every service first" }],
        names: Names::Free,
        result: ("shim", Type::Record("ShimInfo")),
        errors: &[],
    },
    Method {
        name: DISCOVER,
        summary: "This document",
        params: &[],
        names: Names::Free,
        result: ("document", Type::OpenRpc),
        errors: &[],
    },
];

/// Streams events.
pub(super) const FOLLOW: &str = "event.follow";

/// Streams lines.
pub(super) const LOG_STREAM: &str = "log.stream";

/// Whether the answer of this method is followed by notifications.
pub(super) fn streams(method: &str) -> bool {
    [FOLLOW, LOG_STREAM].contains(&method)
}

/// The one method that the server answers by itself.
pub(super) const DISCOVER: &str = "rpc.discover";

/// The method of this name.
pub(super) fn find(name: &str) -> Result<&'static Method, RpcError> {
    METHODS.iter().find(|method| method.name == name).ok_or_else(|| RpcError::no_method(name))
}

impl Method {
    /// Checks a call's params against the table; says whether it wants progress.
    pub(super) fn check(&self, params: &RawValue) -> Result<bool, RpcError> {
        let given = self.object(params)?;
        let known = || self.params.iter().chain([&PROGRESS]);
        for (name, value) in &given {
            let Some(param) = known().find(|param| param.name == name) else {
                let all: Vec<&str> = known().map(|param| param.name).collect();
                let help = format!("{} takes {}", self.name, all.join(", "));
                return Err(invalid(name, format!("{}: no such param: {name}", self.name), help));
            };
            if let Some(problem) = param.of.refuses(value) {
                let help = format!("{name} is {}", param.about);
                return Err(invalid(name, format!("{}: {name} {problem}", self.name), help));
            }
        }
        self.check_names(|name| given.contains_key(name))?;
        Ok(given.get(PROGRESS.name) == Some(&Value::Bool(true)))
    }

    /// The params that are not null.
    fn object(&self, params: &RawValue) -> Result<Map<String, Value>, RpcError> {
        let by_name = || format!("params go by name: {}", self.example());
        match serde_json::from_str(params.get()) {
            Ok(Value::Object(mut given)) => {
                given.retain(|_, value| !value.is_null());
                Ok(given)
            }
            Ok(_) => Err(invalid(
                "params",
                format!("{}: params must be an object, not a list", self.name),
                by_name(),
            )),
            // Only nesting too deep for a value gets here: the text itself has been parsed.
            Err(error) => Err(invalid("params", format!("{}: {error}", self.name), by_name())),
        }
    }

    fn check_names(&self, given: impl Fn(&str) -> bool) -> Result<(), RpcError> {
        let missing = |param: &'static str, wanted: String| {
            let help = format!("for instance {}", self.example());
            Err(invalid(param, format!("{}: {wanted} is missing", self.name), help))
        };
        match self.names {
            Names::Needs(one) if !given(one) => missing(one, one.to_owned()),
            Names::OneOf(one, many) if !given(one) && !given(many) => {
                missing(one, format!("{one} or {many}"))
            }
            Names::OneOf(one, many) | Names::AtMostOne(one, many) if given(one) && given(many) => {
                Err(invalid(
                    many,
                    format!("{}: {one} and {many} cannot both be given", self.name),
                    format!("put all of them into {many}"),
                ))
            }
            _ => Ok(()),
        }
    }

    fn example(&self) -> &'static str {
        match self.names {
            Names::Free => "{}",
            Names::OneOf("spec", _) => r#"{"spec": {"name": "redis", "exec": ["redis-server"]}}"#,
            Names::Needs(_) | Names::OneOf(..) | Names::AtMostOne(..) => r#"{"name": "redis"}"#,
        }
    }
}

fn invalid(param: &str, problem: String, help: String) -> RpcError {
    let mut error = RpcError::invalid_params(problem);
    let data = error.data.get_or_insert_default();
    data.kind = kind::FAILED.into();
    data.field = Some(param.to_owned());
    data.help = Some(help);
    error
}

#[cfg(test)]
mod tests {
    use shimd_api::rpc::code;

    use super::*;

    fn check(method: &str, params: &str) -> Result<bool, (String, String)> {
        let params: Box<RawValue> = serde_json::from_str(params).expect("JSON");
        find(method).expect("a method").check(&params).map_err(|error| {
            assert_eq!(error.code, code::INVALID_PARAMS);
            let field = error.data.and_then(|data| data.field).expect("a field");
            (field, error.message)
        })
    }

    fn field_at_fault(method: &str, params: &str) -> String {
        check(method, params).expect_err("refused").0
    }

    #[test]
    fn params_that_fit_pass() {
        assert_eq!(check("service.start", r#"{"name":"a"}"#), Ok(false));
        assert_eq!(check("service.start", r#"{"names":["a","b"],"progress":true}"#), Ok(true));
        assert_eq!(check("service.start", r#"{"name":"a","names":null,"progress":null}"#), Ok(false));
        assert_eq!(check("service.list", "{}"), Ok(false));
        assert_eq!(check("service.set", r#"{"spec":5}"#), Ok(false), "the handler names a spec's fields");
        assert_eq!(check("socket.check", r#"{"name":"a","paths":["/x"]}"#), Ok(false));
        let params = r#"{"names":["a"],"since":60000000000,"after":7,"kinds":["verdict","state"]}"#;
        assert_eq!(check(FOLLOW, params), Ok(false));
        assert_eq!(check("event.list", r#"{"limit":10,"kinds":[]}"#), Ok(false));
    }

    #[test]
    fn params_that_do_not_fit_are_named() {
        assert_eq!(field_at_fault("service.start", "{}"), "name");
        assert_eq!(field_at_fault("service.start", r#"{"name":null}"#), "name");
        assert_eq!(field_at_fault("service.start", r#"{"name":"a","names":["b"]}"#), "names");
        assert_eq!(field_at_fault("service.start", r#"{"name":7}"#), "name");
        assert_eq!(field_at_fault("service.start", r#"{"names":["a",7]}"#), "names");
        assert_eq!(field_at_fault("service.start", r#"{"name":"a","progress":"yes"}"#), "progress");
        assert_eq!(field_at_fault("service.start", r#"{"nmae":"a"}"#), "nmae");
        assert_eq!(field_at_fault("service.start", r#"["a"]"#), "params");
        assert_eq!(field_at_fault("service.logs", r#"{"name":"a","lines":-1}"#), "lines");
        assert_eq!(field_at_fault("service.logs", r#"{"name":"a","lines":1.5}"#), "lines");
        assert_eq!(field_at_fault("service.set", r#"{"specs":{}}"#), "specs");
        assert_eq!(field_at_fault(FOLLOW, r#"{"since":-1}"#), "since");
        assert_eq!(field_at_fault(FOLLOW, r#"{"since":"1hr"}"#), "since");
        assert_eq!(field_at_fault(FOLLOW, r#"{"kinds":["verdict","nonsense"]}"#), "kinds");
        assert_eq!(field_at_fault(FOLLOW, r#"{"kinds":"verdict"}"#), "kinds");
        assert_eq!(field_at_fault(FOLLOW, r#"{"limit":1}"#), "limit");
        assert_eq!(field_at_fault("event.list", r#"{"name":"a","names":["b"]}"#), "names");
        assert_eq!(field_at_fault("shim.doctor", r#"{"name":"a"}"#), "name");
        let deep = format!(r#"{{"spec":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        assert_eq!(field_at_fault("service.set", &deep), "params");
    }

    #[test]
    fn a_method_that_is_not_there_is_said() {
        assert_eq!(find("service.strat").err().map(|error| error.code), Some(code::NO_METHOD));
    }
}
