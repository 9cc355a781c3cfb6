//! What one client may take, and what all of them may.

use std::time::Duration;

/// The server's limits. [`Limits::default`] is what `shimd` runs with; tests shorten the times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Clients connected at once. One more takes the seat of the longest idle client, or is refused with `busy`.
    pub clients: usize,
    /// How long a client without a request under way keeps its seat for certain, however full the table is.
    pub seat: Duration,
    /// Calls under way on one connection; a client that sends more waits.
    pub in_flight: usize,
    /// Streams on one connection; one more is refused with `busy`.
    pub streams: usize,
    /// Calls in one batch.
    pub batch: usize,
    /// Bytes in one message: a line without its newline, or an HTTP body.
    pub message: usize,
    /// How long the writing of one answer may take before its client is dropped.
    pub write: Duration,
    /// How long a refused client's first byte is waited for, to refuse it in its own protocol.
    pub refusal: Duration,
    /// How long input is read and thrown away after a last word, so that a client that still writes gets to read it.
    pub linger: Duration,
    /// How long calls under way may take to end once the server stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            clients: 256,
            seat: Duration::from_secs(5),
            in_flight: 32,
            streams: 8,
            batch: 128,
            message: 1 << 20,
            write: Duration::from_secs(30),
            refusal: Duration::from_millis(250),
            linger: Duration::from_secs(1),
            drain: Duration::from_secs(5),
        }
    }
}
