//! A walk through a JSON value that knows where it is: each value is asked for by the type that it must have, and an
//! answer of another type is an error that names the field's path.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::duration::parse_duration;
use crate::number::whole_number;
use crate::spec::SpecError;

pub(crate) type Result<T> = std::result::Result<T, SpecError>;

/// A value and the path that names it in an error.
pub(crate) struct Field<'a> {
    pub(crate) path: String,
    pub(crate) value: &'a Value,
}

/// An object whose fields are asked for one by one.
pub(crate) struct Record<'a> {
    pub(crate) path: String,
    pub(crate) map: &'a Map<String, Value>,
}

impl<'a> Field<'a> {
    pub(crate) fn error(&self, problem: impl Into<String>, fix: &str) -> SpecError {
        let field = if self.path.is_empty() { "spec" } else { &self.path };
        SpecError::new(field, problem, fix)
    }

    pub(crate) fn at(&self, index: usize, value: &'a Value) -> Field<'a> {
        Field { path: format!("{}[{index}]", self.path), value }
    }

    /// A string without NUL, which neither exec, a path nor a variable can hold.
    pub(crate) fn text(&self, fix: &str) -> Result<&'a str> {
        match self.value {
            Value::String(text) if text.contains('\0') => Err(self.error("holds a NUL byte", fix)),
            Value::String(text) => Ok(text),
            other => Err(self.error(format!("is {}, not a string", found(other)), fix)),
        }
    }

    /// [`Field::text`] where people leave the quotes out. A number is not taken for its text: Nushell hands `10sec` and
    /// `10MB` on as plain numbers.
    pub(crate) fn quoted_text(&self, fix: &str) -> Result<&'a str> {
        match self.value {
            Value::Number(_) | Value::Bool(_) => {
                self.text(&format!("write it in quotes: \"{}\"", self.value))
            }
            _ => self.text(fix),
        }
    }

    pub(crate) fn items(&self, fix: &str) -> Result<Vec<Field<'a>>> {
        match self.value {
            Value::Array(items) => Ok(items.iter().enumerate().map(|(i, value)| self.at(i, value)).collect()),
            other => Err(self.error(format!("is {}, not a list", found(other)), fix)),
        }
    }

    pub(crate) fn record(&self, fix: &str) -> Result<Record<'a>> {
        match self.value {
            Value::Object(map) => Ok(Record { path: self.path.clone(), map }),
            other => Err(self.error(format!("is {}, not a record", found(other)), fix)),
        }
    }
}

impl<'a> Record<'a> {
    pub(crate) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }

    pub(crate) fn error(&self, name: &str, problem: &str, fix: &str) -> SpecError {
        SpecError::new(self.path_of(name), problem, fix)
    }

    pub(crate) fn missing(&self, name: &str, fix: &str) -> SpecError {
        self.error(name, "is missing", fix)
    }

    /// The field of this name, unless it is absent or `null`.
    pub(crate) fn get(&self, name: &str) -> Option<Field<'a>> {
        let value = self.map.get(name).filter(|value| !value.is_null())?;
        Some(Field { path: self.path_of(name), value })
    }

    pub(crate) fn record(&self, name: &str, fix: &str) -> Result<Option<Record<'a>>> {
        self.get(name).map(|field| field.record(fix)).transpose()
    }

    pub(crate) fn bool(&self, name: &str) -> Result<Option<bool>> {
        let Some(field) = self.get(name) else { return Ok(None) };
        match field.value {
            Value::Bool(value) => Ok(Some(*value)),
            other => {
                Err(field.error(format!("is {}, not true or false", found(other)), "write true or false"))
            }
        }
    }

    pub(crate) fn duration(&self, name: &str) -> Result<Option<Duration>> {
        let Some(field) = self.get(name) else { return Ok(None) };
        parse_duration(field.value).map(Some).map_err(|e| field.error(e.problem, e.fix))
    }

    pub(crate) fn whole(&self, name: &str, range: RangeInclusive<u32>) -> Result<Option<u32>> {
        let Some(field) = self.get(name) else { return Ok(None) };
        let fix = format!("write a whole number from {} to {}", range.start(), range.end());
        let Value::Number(shown) = field.value else {
            return Err(field.error(format!("is {}, not a number", found(field.value)), &fix));
        };
        match whole_number(field.value).map(u32::try_from) {
            Some(Ok(number)) if range.contains(&number) => Ok(Some(number)),
            Some(_) => Err(field.error(format!("{shown} is out of range"), &fix)),
            None => Err(field.error(format!("{shown} is not a whole number"), &fix)),
        }
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>> {
        let Some(field) = self.get(name) else { return Ok(None) };
        let fix =
            format!("write one of {}", words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", "));
        let text = field.text(&fix)?;
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(Some(*value)),
            None => Err(field.error(format!("{text:?} is unknown"), &fix)),
        }
    }
}

/// A value's type, and the value where it is short, for an error message.
pub(crate) fn found(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => format!("a boolean ({value})"),
        Value::Number(number) => format!("a number ({number})"),
        Value::String(text) if text.chars().count() <= 40 => format!("a string ({text:?})"),
        Value::String(_) => "a string".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a record".into(),
    }
}
