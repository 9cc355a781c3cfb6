//! The service spec, the wire types and the client of `shimd`. No tokio, no daemon.

pub mod wire;
