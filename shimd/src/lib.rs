//! The daemon `shimd`, part by part: the pure core, the edge to the kernel, the store, the supervisor that
//! runs the core's actions, and the control socket.

pub mod bridge;
pub mod check;
pub mod cli;
pub mod core;
pub mod daemon;
pub mod logs;
pub mod metrics;
pub mod replace;
pub mod server;
pub mod store;
pub mod supervisor;
pub mod sys;
pub mod wrap;
