//! `nu_plugin_proc`: services and their Unix sockets at the Nushell prompt.

mod chart;
mod colours;
mod commands;
mod completion;
mod config;
mod daemon;
mod error;
mod follow;
mod input;
mod launch;
mod line;
mod live;
mod log;
mod look;
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
mod watch;

fn main() {
    let plugin = plugin::Proc::default();
    nu_plugin::serve_plugin(&plugin, readers::Listening::new(plugin.readers.clone()));
}
