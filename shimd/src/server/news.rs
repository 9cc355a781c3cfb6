//! What a stream tells.

use shimd_api::event::EventRow;
use shimd_api::rpc::RpcError;
use shimd_api::wire::LogLines;

/// One notification of a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// Something happened: an `event` notification.
    Event(Box<EventRow>),
    /// A service wrote: a `log` notification.
    Log(LogLines),
    /// All that was asked for has been told: an `end` that says so.
    Complete,
    /// There is more, and it cannot be told: an `end` with the error.
    Failed(RpcError),
}

impl From<EventRow> for News {
    fn from(row: EventRow) -> News {
        News::Event(Box::new(row))
    }
}

impl From<LogLines> for News {
    fn from(lines: LogLines) -> News {
        News::Log(lines)
    }
}
