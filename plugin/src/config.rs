//! What the user has set for this plugin: the record `$env.config.plugins.proc`, asked from the engine on every call.
//!
//! | key | type, default | is |
//! | --- | --- | --- |
//! | `home` | absolute path | as `$env.SHIMD_HOME`, which wins where it is set |
//! | `deadline` | duration, 10sec | how long a daemon may take to answer, or, at long work, to give a sign of life |
//! | `autostart` | bool, true | whether a command that acts starts a daemon when none runs |
//! | `colours` | bool, or word → style; true | see `colours` |

use std::path::{Path, PathBuf};
use std::time::Duration;

use nu_plugin::EngineInterface;
use nu_protocol::{LabeledError, Record, Span, Value};

use crate::colours::WORDS;
use crate::error;
use crate::place;

/// How long a daemon may take where the user says nothing.
const DEADLINE: Duration = if cfg!(test) { Duration::from_millis(400) } else { Duration::from_secs(10) };

const KEYS: [&str; 4] = ["home", "deadline", "autostart", "colours"];

/// The user's settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The daemon's home where the environment names none.
    pub home: Option<PathBuf>,
    /// How long a daemon may take to answer, or, at long work, to give a sign of life.
    pub deadline: Duration,
    /// Whether a command that acts may start a daemon.
    pub autostart: bool,
    /// Whether text for a terminal is coloured, and how.
    pub colours: Colours,
}

/// How text for a terminal is coloured.
#[derive(Debug, Clone, PartialEq)]
pub enum Colours {
    /// Not at all.
    Off,
    /// With these styles for these words, and the plugin's own for the others.
    On(Record),
}

impl Default for Config {
    fn default() -> Self {
        Config { home: None, deadline: DEADLINE, autostart: true, colours: Colours::On(Record::new()) }
    }
}

impl Config {
    /// Asks for it. `head` is the command that asks.
    ///
    /// # Errors
    /// `proc::bad_config` labels the value that is wrong, and the command.
    pub fn of(engine: &EngineInterface, head: Span) -> Result<Config, LabeledError> {
        let user = || place::variable(engine, "HOME").map(PathBuf::from);
        engine.get_plugin_config()?.map_or_else(|| Ok(Config::default()), |value| read(&value, user, head))
    }
}

fn read(value: &Value, user: impl Fn() -> Option<PathBuf>, head: Span) -> Result<Config, LabeledError> {
    let mut config = Config::default();
    let record = match value {
        Value::Nothing { .. } => return Ok(config),
        Value::Record { val, .. } => val,
        // Of a closure Nushell gives what it evaluates to.
        Value::Error { error, .. } => {
            let problem = "$env.config.plugins.proc cannot be evaluated".into();
            let help = "correct the closure, or set a record: {home: /srv/shim, deadline: 10sec}";
            return Err(error::bad_closure(problem, help, head).with_inner((**error).clone()));
        }
        other => {
            return Err(wrong("", other, "a record", "{home: /srv/shim, deadline: 10sec}", head));
        }
    };
    for (key, value) in record.iter() {
        match (key.as_str(), value) {
            // As good as not set.
            (key, Value::Nothing { .. }) if KEYS.contains(&key) => {}
            ("home", Value::String { val, .. } | Value::Glob { val, .. }) => {
                config.home = Some(home(val, &user).ok_or_else(|| {
                    let problem = format!("$env.config.plugins.proc.home is a relative path ({val})");
                    let help = "set it to an absolute path, or to one that begins with ~/";
                    error::bad_config(problem, "relative to what?", value.span(), help, head)
                })?);
            }
            ("home", other) => return Err(wrong(".home", other, "a path", "'/srv/shim'", head)),
            ("deadline", Value::Duration { val, .. }) => {
                config.deadline = u64::try_from(*val)
                    .ok()
                    .filter(|nanos| *nanos > 0)
                    .map(Duration::from_nanos)
                    .ok_or_else(|| {
                        let problem = "$env.config.plugins.proc.deadline is not longer than nothing";
                        let help = "set it to how long an answer may take: 10sec";
                        error::bad_config(problem.into(), "no time at all", value.span(), help, head)
                    })?;
            }
            ("deadline", other) => return Err(wrong(".deadline", other, "a duration", "10sec", head)),
            ("autostart", Value::Bool { val, .. }) => config.autostart = *val,
            ("autostart", other) => return Err(wrong(".autostart", other, "a bool", "false", head)),
            ("colours", Value::Bool { val: false, .. }) => config.colours = Colours::Off,
            ("colours", Value::Bool { val: true, .. }) => {}
            ("colours", Value::Record { val, .. }) => {
                styles(val, head)?;
                config.colours = Colours::On(val.clone().into_owned());
            }
            ("colours", other) => {
                return Err(wrong(".colours", other, "a bool or a record", "{failed: red_bold}", head));
            }
            (unknown, value) => return Err(error::unknown_key("", unknown, &KEYS, value.span(), head)),
        }
    }
    Ok(config)
}

/// Each is of a known word, and can be a style. Whether it is one, Nushell says when it is used.
fn styles(styles: &Record, head: Span) -> Result<(), LabeledError> {
    for (word, style) in styles {
        if !WORDS.contains(&word.as_str()) {
            return Err(error::unknown_key(".colours", word, &WORDS, style.span(), head));
        }
        if !matches!(style, Value::String { .. } | Value::Record { .. }) {
            let field = format!(".colours.{word}");
            return Err(wrong(
                &field,
                style,
                "a colour or a style",
                "'red_bold', or {fg: red, attr: b}",
                head,
            ));
        }
    }
    Ok(())
}

/// The folder that is meant; `None` for a relative path.
fn home(given: &str, user: &impl Fn() -> Option<PathBuf>) -> Option<PathBuf> {
    let given = Path::new(given);
    let placed = match given.strip_prefix("~") {
        Ok(rest) => user()?.join(rest),
        Err(_) => given.to_owned(),
    };
    placed.is_absolute().then_some(placed)
}

fn wrong(field: &str, value: &Value, wanted: &str, example: &str, head: Span) -> LabeledError {
    let field = format!("$env.config.plugins.proc{field}");
    let label = format!("this is {}", error::a_type(&value.get_type()));
    let help = format!("for example: {field} = {example}");
    error::bad_config(format!("{field} is {wanted}"), label, value.span(), &help, head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nu_protocol::record;

    fn of(value: Value) -> Result<Config, LabeledError> {
        read(&value, || Some("/home/ann".into()), Span::test_data())
    }

    fn text(text: &str) -> Value {
        Value::test_string(text)
    }

    #[test]
    fn all_of_it_is_read() {
        let config = of(Value::test_record(record! {
            "home" => text("~/shim"), "deadline" => Value::test_duration(2_000_000_000),
            "autostart" => Value::test_bool(false),
            "colours" => Value::test_record(record! { "not-socket" => text("red") }),
        }));
        let colours = Colours::On(record! { "not-socket" => text("red") });
        let home = Some("/home/ann/shim".into());
        let expected = Config { home, deadline: Duration::from_secs(2), autostart: false, colours };
        assert_eq!(config.unwrap(), expected);
        assert_eq!(of(Value::test_nothing()).unwrap(), Config::default());
        let unset = record! { "home" => Value::test_nothing(), "colours" => Value::test_bool(true) };
        assert_eq!(of(Value::test_record(unset)).unwrap(), Config::default());
    }

    #[test]
    fn what_is_wrong_is_named_with_the_fix() {
        let said = |key: &str, value: Value| {
            let error = of(Value::test_record(record! { key => value })).unwrap_err();
            assert_eq!(error.code.as_deref(), Some("proc::bad_config"));
            format!("{}; {}", error.msg, error.help.unwrap())
        };
        assert_eq!(
            said("deadline", Value::test_int(5)),
            "$env.config.plugins.proc.deadline is a duration; for example: $env.config.plugins.proc.deadline = 10sec"
        );
        assert!(said("deadline", Value::test_duration(0)).contains("not longer than nothing"));
        assert!(said("home", text("shim")).contains("is a relative path (shim)"));
        assert!(said("autostart", text("no")).contains("autostart is a bool"));
        assert!(said("colours", text("no")).contains("colours is a bool or a record"));
        assert_eq!(
            said("autstart", Value::test_bool(true)),
            "$env.config.plugins.proc has no autstart; did you mean autostart? \
             It may have: home, deadline, autostart, colours"
        );
        let odd = |word: &str, style| said("colours", Value::test_record(record! { word => style }));
        assert!(odd("faild", text("red")).contains("did you mean failed?"));
        assert!(odd("failed", Value::test_int(1)).contains("colours.failed is a colour or a style"));
        let error = of(text("home")).unwrap_err();
        assert!(error.msg.ends_with("is a record"), "{}", error.msg);
    }
}
