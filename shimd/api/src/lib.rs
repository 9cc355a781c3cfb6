//! The service spec, the wire types and the client of `shimd`. No tokio, no daemon.

pub mod client;
pub mod duration;
pub mod graph;
mod parse;
pub mod paths;
mod place;
pub mod rpc;
pub mod size;
pub mod spec;
pub mod wire;

pub use client::{Client, ClientError};
pub use paths::{Home, PathsError, socket_root};
pub use rpc::RpcError;
pub use spec::{Spec, SpecError};
