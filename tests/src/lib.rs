//! The harness of the end-to-end tests: real Nushell, real `shimd`, real servers.
//!
//! - [`World`]: a folder of its own for one scenario, with a home, a socket root and a clean environment;
//!   at its end every process of the scenario must be dead.
//! - [`scenario`]: one trial over a world; what it lacks to run is reported by name, never passed.
//! - [`fault_matrix`]: one row for each fault, to which its scenario is held.
//! - [`Record`]: a real server: how it is installed, started and questioned.
//! - [`load`]: a real server under real clients, which count what they see.
//! - [`wait`]: bounded waits on conditions. No scenario sleeps for a fixed time.
//!
//! The same harness drives `cargo xtask demo`.

pub mod bins;
pub mod cgroups;
pub mod client;
pub mod command;
mod culprits;
mod daemon;
pub mod fault;
pub mod fault_matrix;
pub mod fleet;
pub mod hand;
mod history;
pub mod json;
pub mod load;
pub mod manager;
pub mod mounts;
mod nu;
pub mod probe;
pub mod processes;
pub mod record;
mod relinking;
mod scenario;
pub mod servers_table;
pub mod shown;
pub mod skip;
pub mod soak;
pub mod specs;
pub mod systemd;
pub mod terminal;
pub mod torture;
pub mod wait;
mod world;
mod wrapped;

pub use daemon::RpcFailure;
pub use fault::{Fault, Result};
pub use fault_matrix::Row;
pub use json::Json;
pub use nu::NuFailure;
pub use record::Record;
pub use relinking::Relink;
pub use scenario::{end_worlds_on_interrupt, scenario, scenario_as};
pub use skip::Need;
pub use wait::wait_until;
pub use world::World;
pub use wrapped::Wrapped;
