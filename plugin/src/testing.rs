//! What the tests share.

mod fake;
mod folder;
mod nu;

pub use fake::{FakeDaemon, Manner};
pub use folder::Folder;
pub use nu::Nu;

/// A cell of nested records.
pub fn at(value: &nu_protocol::Value, path: &[&str]) -> nu_protocol::Value {
    path.iter().fold(value.clone(), |value, column| {
        value.as_record().unwrap().get(column).unwrap_or_else(|| panic!("no {column}")).clone()
    })
}
