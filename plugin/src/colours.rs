//! The colours of text for a terminal: `proc events --raw`, `proc history --chart`, `proc top`. Data has none.
//!
//! A word, the state of a service or the verdict of a socket, has the style that the first of these gives:
//!
//! 1. `$env.config.plugins.proc.colours`, by the word;
//! 2. `$env.config.color_config.string`, where that is a closure: with it a user colours the cells of tables, too;
//! 3. the plugin's own: green is good, red is bad, yellow is on its way, dim is down.
//!
//! A time has that of `color_config.datetime`. What a style is, Nushell's own `ansi` says.

use std::collections::HashMap;
use std::io::IsTerminal;

use nu_plugin::{EngineInterface, EvaluatedCall};
use nu_protocol::{
    Config as NuConfig, IntoSpanned, LabeledError, PipelineData, Span, UseAnsiColoring, Value,
};

use crate::config::{Colours, Config};
use crate::{error, place};

/// The words that have one, and the plugin's own style of each.
const OWN: [(&str, &str); 16] = [
    ("running", GOOD),
    ("starting", UNDER_WAY),
    ("stopping", UNDER_WAY),
    ("backoff", UNDER_WAY),
    ("failed", BAD),
    ("inactive", DOWN),
    ("ok", GOOD),
    ("dangling", BAD),
    ("replaced", BAD),
    ("foreign", BAD),
    ("stale", BAD),
    ("not-socket", BAD),
    ("absent", DOWN),
    ("wedged", BAD),
    ("denied", BAD),
    ("unknown", UNDER_WAY),
];
const GOOD: &str = "\x1b[32m";
const BAD: &str = "\x1b[31m";
const UNDER_WAY: &str = "\x1b[33m";
const DOWN: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// The words that have a style.
pub const WORDS: [&str; OWN.len()] = {
    let mut words = [""; OWN.len()];
    let mut at = 0;
    while at < OWN.len() {
        words[at] = OWN[at].0;
        at += 1;
    }
    words
};

/// What stands for times, which are no word.
const TIME: &str = " time";

/// Which escape sequence begins which word; none where text is to stay plain.
#[derive(Debug, Clone, Default)]
pub struct Palette(HashMap<String, String>);

impl Palette {
    /// That of this call: plain unless Nushell's own output is a terminal. Whether what the call gives is shown there or
    /// goes on in a pipeline, Nushell does not tell its plugins.
    ///
    /// # Errors
    /// `proc::bad_config` labels a setting that is wrong, or a style that Nushell does not know.
    pub fn of(engine: &EngineInterface, head: Span) -> Result<Palette, LabeledError> {
        if !std::io::stdout().is_terminal() {
            return Ok(Palette::default());
        }
        let Colours::On(own) = Config::of(engine, head)?.colours else { return Ok(Palette::default()) };
        let nushells = engine.get_config()?;
        if !wanted(nushells.use_ansi_coloring, |name| place::variable(engine, name)) {
            return Ok(Palette::default());
        }
        let mut palette: HashMap<String, String> =
            OWN.iter().map(|(word, style)| ((*word).into(), (*style).into())).collect();
        for (word, style) in of_strings(engine, &nushells) {
            palette.insert(word.into(), style);
        }
        for (word, style) in &own {
            let problem = || error::no_style(word, style.span(), head);
            palette.insert(word.clone(), escape(engine, style).ok_or_else(problem)?);
        }
        if let Some(time) = nushells.color_config.get("datetime").and_then(|style| escape(engine, style)) {
            palette.insert(TIME.into(), time);
        }
        Ok(Palette(palette))
    }

    /// The text in the style of a word.
    pub fn paint(&self, word: &str, text: &str) -> String {
        match self.0.get(word) {
            Some(style) if !style.is_empty() && !text.is_empty() => format!("{style}{text}{RESET}"),
            _ => text.to_owned(),
        }
    }

    /// The text in the style of a time.
    pub fn paint_time(&self, text: &str) -> String {
        self.paint(TIME, text)
    }

    /// The escape sequence that begins a word; empty for none.
    pub fn style(&self, word: &str) -> &str {
        self.0.get(word).map_or("", String::as_str)
    }

    /// The plugin's own.
    #[cfg(test)]
    pub fn own() -> Palette {
        Palette(OWN.iter().map(|(word, style)| ((*word).into(), (*style).into())).collect())
    }
}

/// Whether the user wants colours on a terminal: as Nushell itself decides it for one.
fn wanted(set: UseAnsiColoring, variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> bool {
    let is_on = |name: &str| variable(name).map(|value| !value.is_empty() && value != "0");
    match set {
        UseAnsiColoring::True => true,
        UseAnsiColoring::False => false,
        UseAnsiColoring::Auto => {
            is_on("FORCE_COLOR") == Some(true)
                || (is_on("NO_COLOR") != Some(true)
                    && is_on("CLICOLOR") != Some(false)
                    && variable("TERM").is_none_or(|term| term != "dumb"))
        }
    }
}

/// What the user's closure for strings in tables says of the words.
fn of_strings(engine: &EngineInterface, config: &NuConfig) -> Vec<(&'static str, String)> {
    let Some(Value::Closure { val, internal_span, .. }) = config.color_config.get("string") else {
        return Vec::new();
    };
    let closure = (**val).clone().into_spanned(*internal_span);
    let style = |word: &str| {
        let word = Value::string(word, *internal_span);
        let style = engine.eval_closure(&closure, vec![word.clone()], Some(word)).ok()?;
        // It says so of what it has no opinion on.
        let is_default = style.as_str().is_ok_and(|style| style == "default");
        if is_default { None } else { escape(engine, &style) }
    };
    WORDS.iter().filter_map(|word| Some((*word, style(word)?))).collect()
}

/// The escape sequence of a style: `red_bold`, `#ff0000`, `{fg: red, attr: b}`.
fn escape(engine: &EngineInterface, style: &Value) -> Option<String> {
    let span = style.span();
    let ansi = engine.find_decl("ansi").ok()??;
    let call = EvaluatedCall { head: span, positional: vec![style.clone()], named: Vec::new() };
    let sequence =
        engine.call_decl(ansi, call, PipelineData::empty(), true, true).ok()?.into_value(span).ok()?;
    // Only what sets a style: `ansi` knows more.
    sequence.into_string().ok().filter(|sequence| sequence.ends_with('m'))
}
