//! The only place where wire types become Nushell values, and Nushell values become JSON.
//!
//! | on the wire | in Nushell |
//! | --- | --- |
//! | nanoseconds | `duration`, rounded as one would say it (see `measured`) |
//! | RFC 3339 text | `datetime` |
//! | pid, inode, count | `int` |
//! | a list of rows | a table |
//! | `null` | `nothing` |

mod cells;
mod json;
mod rows;

use nu_protocol::{
    LabeledError, ListStream, PipelineData, PipelineMetadata, ShellError, Signals, Span, Value,
};

pub use cells::{readable, time};
pub use json::{Unfit, to_json};

/// A wire type that has a form in Nushell.
pub trait ToValue {
    /// The columns that get their width first.
    const KEYS: &'static [&'static str];

    /// The value, every part of it marked with `span`.
    fn to_value(&self, span: Span) -> Value;
}

/// A table of rows, whose key columns get their width first.
pub fn table<T: ToValue>(rows: &[T], span: Span) -> PipelineData {
    PipelineData::value(list(rows, span), Some(key_columns(T::KEYS, span)))
}

/// A table whose rows come as they happen. An error is its last row.
pub fn stream<T: ToValue>(
    rows: impl Iterator<Item = Result<T, LabeledError>> + Send + 'static,
    span: Span,
) -> PipelineData {
    let rows = rows.map(move |row| match row {
        Ok(row) => row.to_value(span),
        Err(error) => Value::error(ShellError::from(error), span),
    });
    // Ctrl-C is seen to by the rows.
    PipelineData::list_stream(ListStream::new(rows, span, Signals::empty()), Some(key_columns(T::KEYS, span)))
}

/// Metadata that tells `table` which columns to give their width first.
pub fn key_columns(keys: &[&str], span: Span) -> PipelineMetadata {
    PipelineMetadata::default().with_table_width_priority_columns(span, keys)
}

fn list<T: ToValue>(rows: &[T], span: Span) -> Value {
    Value::list(rows.iter().map(|row| row.to_value(span)).collect(), span)
}
