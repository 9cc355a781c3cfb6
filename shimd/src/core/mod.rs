//! The core: what a service does next, as data. No I/O, no clock, no async; the supervisor runs its actions.

mod beside;
pub mod events;
pub mod machine;
pub mod policy;
mod recovered;
mod ways;

#[cfg(test)]
mod explore;
#[cfg(test)]
mod rows;
