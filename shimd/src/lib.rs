//! The library of the daemon `shimd`.

pub mod sys;
