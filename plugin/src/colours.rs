//! Colours.

/// The words that have one: the states of services, and the verdicts of sockets.
pub const WORDS: [&str; 16] = [
    "running",
    "starting",
    "stopping",
    "backoff",
    "failed",
    "inactive",
    "ok",
    "dangling",
    "replaced",
    "foreign",
    "stale",
    "not-socket",
    "absent",
    "wedged",
    "denied",
    "unknown",
];
