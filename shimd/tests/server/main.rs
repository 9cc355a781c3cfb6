//! The control socket over real sockets, with a handler that does what each test needs.
#![allow(clippy::expect_used, clippy::panic)] // a helper's failure is its test's failure

mod bind;
mod control;
mod http;
mod limits;
mod lines;
mod streams;
mod support;
