//! The service spec, the wire types and the client of `shimd`. No tokio, no daemon.

pub mod client;
pub mod duration;
pub mod event;
pub mod graph;
mod number;
mod parse;
pub mod paths;
pub mod place;
pub mod rpc;
mod signal;
pub mod size;
pub mod spec;
mod walk;
pub mod wire;

pub use client::{Client, ClientError, Follow};
pub use paths::{Home, PathsError, socket_root};
pub use rpc::RpcError;
pub use spec::{Spec, SpecError};
