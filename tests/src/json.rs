//! Reading rows: a scenario asks for a field by name and gets a fault that shows the whole value.

use crate::{Fault, Result};
use serde_json::Value;

/// Typed looks into a JSON value.
pub trait Json {
    /// The field, `null` where it is absent.
    fn field(&self, name: &str) -> &Value;
    /// A field that must be a string.
    fn text(&self, name: &str) -> Result<&str>;
    /// A field that must be a whole number.
    fn int(&self, name: &str) -> Result<i64>;
    /// A pid field.
    fn pid(&self, name: &str) -> Result<i32>;
    /// This value as rows.
    fn rows(&self) -> Result<&Vec<Value>>;
    /// The row of a table whose `column` is `value`.
    fn row(&self, column: &str, value: &str) -> Result<&Value>;
    /// The only row of a table.
    fn only(&self) -> Result<&Value>;
}

impl Json for Value {
    fn field(&self, name: &str) -> &Value {
        self.get(name).unwrap_or(&Value::Null)
    }

    fn text(&self, name: &str) -> Result<&str> {
        self.field(name).as_str().ok_or_else(|| Fault(format!("no text `{name}` in {self}")))
    }

    fn int(&self, name: &str) -> Result<i64> {
        self.field(name).as_i64().ok_or_else(|| Fault(format!("no number `{name}` in {self}")))
    }

    fn pid(&self, name: &str) -> Result<i32> {
        let pid = i32::try_from(self.int(name)?)?;
        if pid > 1 { Ok(pid) } else { Err(Fault(format!("{pid} is no pid, in {self}"))) }
    }

    fn rows(&self) -> Result<&Vec<Value>> {
        self.as_array().ok_or_else(|| Fault(format!("no table: {self}")))
    }

    fn row(&self, column: &str, value: &str) -> Result<&Value> {
        self.rows()?
            .iter()
            .find(|row| row.field(column).as_str() == Some(value))
            .ok_or_else(|| Fault(format!("no row with {column} = {value} in {self}")))
    }

    fn only(&self) -> Result<&Value> {
        match self.rows()?.as_slice() {
            [row] => Ok(row),
            rows => Err(Fault(format!("{} rows in place of one: {self}", rows.len()))),
        }
    }
}
