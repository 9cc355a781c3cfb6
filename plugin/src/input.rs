//! What a command is told to work on: names as arguments, else names or rows from the pipeline.
//!
//! Arguments win: inside `each { |row| proc status $row.name }` Nushell hands the row to the command as
//! input as well, and only the argument is meant.
//!
//! | given | means |
//! | --- | --- |
//! | no argument, nothing in the pipeline | all services (commands that look), or an error (commands that act) |
//! | an empty list or table | no service: the command does nothing |
//! | a string, a list of strings | names |
//! | a record, a table | the column `name`, else `service`, of each row |

use std::collections::HashSet;

use nu_plugin::EvaluatedCall;
use nu_protocol::{IntoSpanned, LabeledError, PipelineData, Span, Spanned, Value};
use serde_json::{Value as Json, json};

use crate::error;

/// Nothing tells a command inside `each` from one at the end of a pipe.
const EACH: &str = "inside each {} the row is the input: name the service there, or begin with null |";

/// The names that a command was given.
#[derive(Debug, Clone, PartialEq)]
pub enum Names {
    /// Neither an argument nor input.
    NotGiven,
    /// These, each once, in the order given; perhaps none.
    Given(Vec<Spanned<String>>),
}

impl Names {
    /// Reads the rest arguments, or else the pipeline.
    ///
    /// # Errors
    /// `proc::bad_input` labels the value that holds no name.
    pub fn read(call: &EvaluatedCall, input: PipelineData) -> Result<Names, LabeledError> {
        Self::read_columns(call, input, &["name", "service"])
    }

    /// The same with other columns, of which the first that is there and not `null` counts.
    ///
    /// # Errors
    /// As [`Names::read`].
    pub fn read_columns(
        call: &EvaluatedCall,
        input: PipelineData,
        columns: &[&str],
    ) -> Result<Names, LabeledError> {
        let mut names = Vec::new();
        if call.positional.is_empty() {
            let span = input.span().unwrap_or(call.head);
            let value = input.into_value(span)?;
            if value.is_nothing() {
                return Ok(Names::NotGiven);
            }
            collect(&value, columns, &mut names)?;
        } else {
            for argument in &call.positional {
                collect(argument, columns, &mut names)?;
            }
        }
        let mut seen = HashSet::new();
        names.retain(|name| seen.insert(name.item.clone()));
        Ok(Names::Given(names))
    }

    /// The one name, where none or several are a mistake.
    ///
    /// # Errors
    /// `proc::bad_input` labels the second name, or says how to name a service to `command`.
    pub fn only(self, command: &str, head: Span) -> Result<Spanned<String>, LabeledError> {
        let each = format!("proc list | each {{ |row| {command} $row.name }}");
        let names = self.named(command, head, &each)?;
        let given = names.len();
        let mut names = names.into_iter();
        match (names.next(), names.next()) {
            (Some(only), None) => Ok(only),
            (_, second) => {
                let found = if given == 0 { "none is named".into() } else { format!("{given} services") };
                let span = second.map_or(head, |second| second.span);
                let help = format!("{command} NAME, or for each of them: {each}");
                Err(error::bad_input(format!("{command} shows one service"), found, span, &help))
            }
        }
    }

    /// The names, where none given is a mistake.
    ///
    /// # Errors
    /// `proc::bad_input` says how to name services to `command`.
    pub fn required(self, command: &str, head: Span) -> Result<Vec<Spanned<String>>, LabeledError> {
        let all = format!("proc list | {command}");
        self.named(command, head, &all)
    }

    fn named(self, command: &str, head: Span, all: &str) -> Result<Vec<Spanned<String>>, LabeledError> {
        match self {
            Names::Given(names) => Ok(names),
            Names::NotGiven => Err(error::bad_input(
                format!("{command} needs the name of a service"),
                "no name as argument, and nothing in the pipeline",
                head,
                &format!("{command} NAME, or for all of them: {all}"),
            )),
        }
    }
}

/// The `names` parameter of a request.
pub fn names_param(names: &[Spanned<String>]) -> Json {
    json!(names.iter().map(|name| name.item.as_str()).collect::<Vec<_>>())
}

fn collect(value: &Value, columns: &[&str], names: &mut Vec<Spanned<String>>) -> Result<(), LabeledError> {
    match value {
        Value::String { val, .. } | Value::Glob { val, .. } if val.is_empty() => Err(error::bad_input(
            "a name is empty".into(),
            "no service is called so",
            value.span(),
            "proc list shows the names",
        )),
        Value::String { val, .. } | Value::Glob { val, .. } => {
            names.push(val.clone().into_spanned(value.span()));
            Ok(())
        }
        Value::List { vals, .. } => vals.iter().try_for_each(|item| collect(item, columns, names)),
        Value::Record { val, .. } => {
            let cell = columns.iter().find_map(|column| val.get(column).filter(|cell| !cell.is_nothing()));
            match cell {
                Some(cell @ (Value::String { .. } | Value::Error { .. })) => collect(cell, columns, names),
                Some(cell) => Err(wrong_type(cell)),
                None => {
                    let empty = columns.iter().find(|column| val.contains(*column));
                    let label = match empty {
                        Some(column) => format!("its {column} is null"),
                        None => format!("this record has {}", listed(val.columns().map(String::as_str))),
                    };
                    let problem = format!("a row without a {}", columns.join(" or "));
                    let help =
                        format!("pipe rows of proc list or proc socket-check, or a list of names; {EACH}");
                    Err(error::bad_input(problem, label, value.span(), &help))
                }
            }
        }
        Value::Error { error, .. } => Err((**error).clone().into()),
        other => Err(wrong_type(other)),
    }
}

fn wrong_type(value: &Value) -> LabeledError {
    error::bad_input(
        "a service is named by a string".into(),
        format!("this is {}", error::a_type(&value.get_type())),
        value.span(),
        &format!("give names, or pipe in a list of names, or rows with a column name or service; {EACH}"),
    )
}

fn listed<'a>(columns: impl Iterator<Item = &'a str>) -> String {
    let columns: Vec<&str> = columns.take(8).collect();
    if columns.is_empty() { "no columns".into() } else { format!("only {}", columns.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nu_protocol::{ShellError, record};

    fn read(arguments: Vec<Value>, input: Value) -> Result<Names, LabeledError> {
        let mut call = EvaluatedCall::new(Span::test_data());
        call.positional = arguments;
        Names::read(&call, PipelineData::value(input, None))
    }

    fn given(names: &[&str]) -> Names {
        Names::Given(names.iter().map(|name| (*name).to_string().into_spanned(Span::test_data())).collect())
    }

    fn row(column: &str, name: &str) -> Value {
        Value::test_record(record! { column => Value::test_string(name), "pid" => Value::test_int(1) })
    }

    #[test]
    fn names_come_from_arguments_or_the_pipeline() {
        let nothing = Value::test_nothing;
        let words =
            |words: &[&str]| Value::test_list(words.iter().map(|word| Value::test_string(*word)).collect());
        assert_eq!(read(vec![], nothing()).unwrap(), Names::NotGiven);
        assert_eq!(read(vec![], Value::test_list(vec![])).unwrap(), given(&[]));
        assert_eq!(read(vec![Value::test_string("a")], nothing()).unwrap(), given(&["a"]));
        assert_eq!(read(vec![words(&["a", "b"])], nothing()).unwrap(), given(&["a", "b"]));
        assert_eq!(read(vec![Value::test_string("a")], row("name", "b")).unwrap(), given(&["a"]));
        assert_eq!(read(vec![], Value::test_string("a")).unwrap(), given(&["a"]));
        assert_eq!(read(vec![], words(&["b", "a", "b"])).unwrap(), given(&["b", "a"]));
        assert_eq!(read(vec![], row("service", "a")).unwrap(), given(&["a"]));
        let table = Value::test_list(vec![row("name", "a"), row("service", "b"), Value::test_string("c")]);
        assert_eq!(read(vec![], table).unwrap(), given(&["a", "b", "c"]));
    }

    #[test]
    fn wrong_input_is_labelled_with_its_type() {
        let label = |value: Value| {
            let error = read(vec![], value).unwrap_err();
            assert_eq!(error.code.as_deref(), Some("proc::bad_input"));
            error.labels.first().unwrap().text.clone()
        };
        assert_eq!(label(Value::test_int(5)), "this is an int");
        assert_eq!(label(Value::test_list(vec![Value::test_duration(5)])), "this is a duration");
        assert_eq!(label(row("size", "5")), "this record has only size, pid");
        assert_eq!(label(Value::test_record(record! {})), "this record has no columns");
        let null = Value::test_record(record! { "name" => Value::test_nothing() });
        assert_eq!(label(null), "its name is null");
        assert_eq!(label(Value::test_string("")), "no service is called so");
        let odd = Value::test_record(record! { "name" => Value::test_int(5) });
        assert_eq!(label(odd), "this is an int");
    }

    #[test]
    fn an_error_in_the_pipeline_passes_through() {
        let error = ShellError::NushellFailed { msg: "from before".into() };
        let read = read(vec![], Value::test_list(vec![Value::error(error, Span::test_data())]));
        assert!(read.unwrap_err().msg.contains("Nushell failed"));
    }

    #[test]
    fn no_name_says_what_to_give() {
        let error = Names::NotGiven.required("proc start", Span::test_data()).unwrap_err();
        assert_eq!(error.code.as_deref(), Some("proc::bad_input"));
        assert_eq!(
            error.help.as_deref(),
            Some("proc start NAME, or for all of them: proc list | proc start")
        );
    }
}
