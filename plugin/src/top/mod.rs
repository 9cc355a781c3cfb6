//! `proc top`: a live view of all services.
//!
//! | file | holds |
//! | --- | --- |
//! | `model` | what is known, what is selected, what a key does: pure |
//! | `spells` | how a service's sockets were over time, and its bar: pure |
//! | `view` | the model as a screen of any size: pure |
//! | `style` | the escape sequences of Nushell's styles, as styles of this view: pure |
//! | `source` | the daemon, asked twice a second from a thread of its own |
//! | `screen` | the terminal, taken and given back, and the loop |

mod model;
mod screen;
mod source;
mod spells;
mod style;
mod view;

pub use screen::show;
