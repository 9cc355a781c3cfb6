//! One file a command.

pub mod doctor;
pub mod events;
pub mod heal;
pub mod help;
pub mod history;
pub mod list;
pub mod logs;
pub mod register;
pub mod reset_failed;
pub mod restart;
pub mod shim;
pub mod socket_check;
pub mod start;
pub mod status;
pub mod stop;
pub mod top;
pub mod unregister;
