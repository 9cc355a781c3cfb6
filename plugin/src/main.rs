//! `nu_plugin_proc`: services and their Unix sockets at the Nushell prompt.

mod chart;
mod colours;
mod commands;
mod completion;
mod config;
mod daemon;
mod error;
mod flags;
mod follow;
mod input;
mod launch;
mod line;
mod live;
mod log;
mod look;
mod managed;
mod pace;
mod place;
mod plugin;
mod progress;
mod readers;
mod signature;
mod spells;
mod stop;
#[cfg(test)]
mod testing;
mod text;
mod top;
mod value;
mod version;
mod watch;

fn main() {
    // Nushell tries both ways of speaking to a plugin, this one first: it is to be said once.
    let first = std::env::args().any(|argument| argument == "--stdio");
    let nushell = std::env::var("NU_VERSION").ok().filter(|_| first);
    if let Some(words) = nushell.and_then(|nushell| version::refusal(&nushell)) {
        eprintln!("{words}");
    }
    let plugin = plugin::Proc::default();
    nu_plugin::serve_plugin(&plugin, readers::Listening::new(plugin.readers.clone()));
}
