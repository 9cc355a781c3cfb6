//! The plugin and its list of commands.

use nu_plugin::{Plugin, PluginCommand};

use crate::commands::{
    doctor::Doctor,
    events::Events,
    heal::Heal,
    help::Overview,
    history::History,
    list::List,
    logs::Logs,
    register::Register,
    reset_failed::ResetFailed,
    restart::Restart,
    shim::{ShimRestart, ShimStart, ShimStatus, ShimStop},
    socket_check::SocketCheck,
    start::Start,
    status::Status,
    stop::Stop,
    top::Top,
    unregister::Unregister,
};
use crate::readers::Readers;

/// The plugin. Nushell ends it after ten idle seconds, so it keeps nothing beyond its open streams.
#[derive(Default)]
pub struct Proc {
    /// Who reads them.
    pub readers: Readers,
}

/// The version of this plugin, of which major and minor must be the daemon's.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Plugin for Proc {
    fn version(&self) -> String {
        VERSION.into()
    }

    fn commands(&self) -> Vec<Box<dyn PluginCommand<Plugin = Self>>> {
        vec![
            Box::new(Overview),
            Box::new(Register),
            Box::new(Unregister),
            Box::new(List),
            Box::new(Status),
            Box::new(Start),
            Box::new(Stop),
            Box::new(Restart),
            Box::new(SocketCheck),
            Box::new(Heal),
            Box::new(Logs),
            Box::new(Events),
            Box::new(History),
            Box::new(Doctor),
            Box::new(Top),
            Box::new(ResetFailed),
            Box::new(ShimStart),
            Box::new(ShimStop),
            Box::new(ShimRestart),
            Box::new(ShimStatus),
        ]
    }
}
