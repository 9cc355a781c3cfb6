//! One message of JSON-RPC 2.0 taken apart, and answers put together. Pure.
//!
//! | message | becomes |
//! | --- | --- |
//! | not JSON | one answer, id null: -32700 |
//! | JSON, neither object nor array; an empty array; an array over the limit | one answer, id null: -32600 |
//! | an object that is a request | a call |
//! | an object that is not | an answer: -32600, with its id if that can be read, else null |
//! | an array | a batch of the above, of which each element stands for itself |
//!
//! An id is echoed byte for byte, so that no number loses digits. A call without an id is a notification: never answered.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use shimd_api::rpc::RpcError;

/// A message.
#[derive(Debug)]
pub(super) enum Message {
    /// An object.
    Single(Item),
    /// An array, not empty.
    Batch(Vec<Item>),
}

/// An object that is to be a request.
#[derive(Debug)]
pub(super) enum Item {
    /// It is one.
    Call(Call),
    /// It is not: the answer's id and why.
    Invalid(Id, RpcError),
}

/// A request or notification.
#[derive(Debug)]
pub(super) struct Call {
    /// Absent in a notification.
    pub(super) id: Option<Id>,
    pub(super) method: String,
    /// An object or array as it was written; `{}` where absent or empty.
    pub(super) params: Box<RawValue>,
}

/// A request's id: a string, number or null, as it was written.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Id(Box<RawValue>);

impl Id {
    pub(super) fn null() -> Self {
        Id(RawValue::NULL.to_owned())
    }

    fn read(raw: &RawValue) -> Option<Self> {
        let scalar = raw.get() == "null"
            || raw.get().starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit());
        scalar.then(|| Id(raw.to_owned()))
    }
}

/// The members of a request, each of any type.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
}

/// A member that is there is `Some`, also where it holds `null`.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(source: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(source).map(Some)
}

/// Takes a message apart; the error is to be answered with a null id.
pub(super) fn parse(text: &[u8], batch_limit: usize) -> Result<Message, RpcError> {
    let raw: &RawValue = serde_json::from_slice(text).map_err(RpcError::parse)?;
    match raw.get().as_bytes().first() {
        Some(b'{') => Ok(Message::Single(item(raw))),
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(RpcError::parse)?;
            match items.len() {
                0 => Err(RpcError::invalid_request("an empty batch")),
                n if n > batch_limit => {
                    Err(RpcError::invalid_request(format!("a batch of {n}; at most {batch_limit} at once")))
                }
                _ => Ok(Message::Batch(items.into_iter().map(item).collect())),
            }
        }
        _ => Err(RpcError::invalid_request("neither an object nor an array")),
    }
}

fn item(raw: &RawValue) -> Item {
    if !raw.get().starts_with('{') {
        return Item::Invalid(Id::null(), RpcError::invalid_request("not an object"));
    }
    let members: Members = match serde_json::from_str(raw.get()) {
        Ok(members) => members,
        Err(error) => return Item::Invalid(Id::null(), RpcError::invalid_request(error)),
    };
    let id = match members.id.map(|raw| Id::read(raw).ok_or(())) {
        None => None,
        Some(Ok(id)) => Some(id),
        Some(Err(())) => {
            let problem = "id is neither a string, a number nor null";
            return Item::Invalid(Id::null(), RpcError::invalid_request(problem));
        }
    };
    match method_and_params(&members) {
        Ok((method, params)) => Item::Call(Call { id, method, params }),
        Err(problem) => Item::Invalid(id.unwrap_or_else(Id::null), RpcError::invalid_request(problem)),
    }
}

fn method_and_params(members: &Members) -> Result<(String, Box<RawValue>), &'static str> {
    let text = |raw: Option<&RawValue>| raw.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    if text(members.jsonrpc).as_deref() != Some("2.0") {
        return Err("jsonrpc must be \"2.0\"");
    }
    let method = text(members.method).ok_or("method must be a string")?;
    let params = match members.params {
        // JSON-RPC wants params left out where there are none; many clients write null or an empty array.
        None => EMPTY,
        Some(raw) => match raw.get().as_bytes() {
            b"null" => EMPTY,
            [b'[', rest @ ..] if rest.trim_ascii() == b"]" => EMPTY,
            [b'{' | b'[', ..] => raw.get(),
            _ => return Err("params must be an object"),
        },
    };
    let params = RawValue::from_string(params.to_owned()).map_err(|_| "params must be an object")?;
    Ok((method, params))
}

const EMPTY: &str = "{}";

#[derive(Serialize)]
struct Answer<'a> {
    jsonrpc: &'static str,
    id: &'a Id,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RpcError>,
}

/// The answer to a request, without a newline.
pub(super) fn answer(id: &Id, outcome: &Result<Box<RawValue>, RpcError>) -> String {
    let (result, error) = (outcome.as_deref().ok(), outcome.as_ref().err());
    // Neither values nor errors hold anything that JSON cannot.
    serde_json::to_string(&Answer { jsonrpc: "2.0", id, result, error }).unwrap_or_default()
}

#[derive(Serialize)]
struct Notice<P> {
    jsonrpc: &'static str,
    method: &'static str,
    params: P,
}

/// A notification to the client, without a newline.
pub(super) fn notification(method: &'static str, params: impl Serialize) -> String {
    // Params are the wire types, which hold nothing that JSON cannot.
    serde_json::to_string(&Notice { jsonrpc: "2.0", method, params }).unwrap_or_default()
}

/// The answer to what has no id of its own.
pub(super) fn refusal(error: RpcError) -> String {
    answer(&Id::null(), &Err(error))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shimd_api::rpc::code;

    use super::*;

    fn call(text: &str) -> Call {
        match parse(text.as_bytes(), 4) {
            Ok(Message::Single(Item::Call(call))) => call,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn invalid(text: &str) -> (String, i64) {
        match parse(text.as_bytes(), 4) {
            Ok(Message::Single(Item::Invalid(id, error))) => (id.0.get().to_owned(), error.code),
            Err(error) => ("null".to_owned(), error.code),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn an_id_is_echoed_as_written() {
        for id in ["1", "-1.50", "123456789012345678901234567890", "\"a\\u0041\"", "null"] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#);
            let echoed = answer(&call(&text).id.expect("an id"), &Ok(RawValue::NULL.to_owned()));
            assert_eq!(echoed, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":null}}"#));
        }
        assert!(call(r#"{"jsonrpc":"2.0","method":"m"}"#).id.is_none());
    }

    #[test]
    fn params_are_kept_as_written_or_empty() {
        assert_eq!(
            call(r#"{"jsonrpc":"2.0","method":"m","params":{"a": 1.0 }}"#).params.get(),
            r#"{"a": 1.0 }"#
        );
        assert_eq!(call(r#"{"jsonrpc":"2.0","method":"m","params":null}"#).params.get(), "{}");
        assert_eq!(call(r#"{"jsonrpc":"2.0","method":"m","params":[ ]}"#).params.get(), "{}");
        assert_eq!(call(r#"{"jsonrpc":"2.0","method":"m"}"#).params.get(), "{}");
    }

    #[test]
    fn what_is_wrong_is_said_with_the_id_if_it_can_be_read() {
        let request = |members: &str| format!("{{{members}}}");
        for (text, id, code) in [
            ("{", "null", code::PARSE),
            ("{}x", "null", code::PARSE),
            ("\u{0}", "null", code::PARSE),
            ("1", "null", code::INVALID_REQUEST),
            ("[]", "null", code::INVALID_REQUEST),
            ("[1,2,3,4,5]", "null", code::INVALID_REQUEST),
            ("{}", "null", code::INVALID_REQUEST),
            (&request(r#""jsonrpc":"2.0","id":7,"method":1"#), "7", code::INVALID_REQUEST),
            (&request(r#""jsonrpc":"1.0","id":7,"method":"m""#), "7", code::INVALID_REQUEST),
            (&request(r#""id":"x","method":"m""#), "\"x\"", code::INVALID_REQUEST),
            (&request(r#""jsonrpc":"2.0","id":[1],"method":"m""#), "null", code::INVALID_REQUEST),
            (&request(r#""jsonrpc":"2.0","id":true,"method":"m""#), "null", code::INVALID_REQUEST),
            (&request(r#""jsonrpc":"2.0","id":7,"method":"m","params":"bar""#), "7", code::INVALID_REQUEST),
            (&request(r#""jsonrpc":"2.0","id":7,"id":8,"method":"m""#), "null", code::INVALID_REQUEST),
        ] {
            assert_eq!(invalid(text), (id.to_owned(), code), "{text}");
        }
    }

    #[test]
    fn each_element_of_a_batch_stands_for_itself() {
        let text = br#"[1, {"jsonrpc":"2.0","id":1,"method":"m"}, {"foo":"boo"}]"#;
        let Ok(Message::Batch(items)) = parse(text, 4) else { panic!("a batch") };
        assert!(matches!(items.as_slice(), [Item::Invalid(..), Item::Call(_), Item::Invalid(..)]));
    }

    #[test]
    fn deep_nesting_is_no_stack_overflow() {
        let deep = "[".repeat(500_000);
        assert_eq!(invalid(&deep), ("null".to_owned(), code::PARSE));
        let closed = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{}{}}}"#,
            "[".repeat(250_000),
            "]".repeat(250_000)
        );
        call(&closed);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse(&bytes, 4);
        }

        #[test]
        fn an_answer_is_one_line_of_json(message in any::<String>()) {
            let line = refusal(RpcError::parse(&message));
            prop_assert!(!line.contains('\n'));
            prop_assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
        }
    }
}
