//! `nu_plugin_proc`: services and their Unix sockets at the Nushell prompt.

mod commands;
mod daemon;
mod error;
mod input;
mod launch;
mod place;
mod plugin;
mod progress;
mod signature;
#[cfg(test)]
mod testing;
mod value;

fn main() {
    nu_plugin::serve_plugin(&plugin::Proc, nu_plugin::MsgPackSerializer);
}
