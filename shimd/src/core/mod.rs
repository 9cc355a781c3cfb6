//! The core: what a service does next, as data. No I/O, no clock, no async; the supervisor runs its actions.

pub mod events;
pub mod machine;
pub mod policy;

#[cfg(test)]
mod explore;
