//! The table of clients: who has a seat, and who gives it up.
//!
//! | table | someone idle for longer than `Limits::seat` | a newcomer |
//! | --- | --- | --- |
//! | has room | | gets a seat |
//! | full | yes | gets the seat of the one idle longest, who is disconnected |
//! | full | no | is refused: `busy` |
//!
//! Idle is a client without a call under way; bytes alone do not count, so neither silence nor a line that never ends
//! holds a seat against a client that wants something. A call is under way until its answer has been written, and a
//! stream until it ends: who follows is not idle.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::limits::Limits;

/// All clients of one server.
pub(super) struct Clients {
    limits: Limits,
    table: Mutex<Table>,
}

/// The seats by client. Pure: the clock is the caller's.
#[derive(Default)]
struct Table {
    seats: HashMap<u64, Seat>,
    next: u64,
}

struct Seat {
    /// Calls under way.
    busy: usize,
    /// When it sat down or its last call ended.
    idle_since: Instant,
    leave: Arc<Notify>,
}

/// One client's seat, given up when dropped.
pub(super) struct Client {
    id: u64,
    clients: Arc<Clients>,
    leave: Arc<Notify>,
    /// Room for calls.
    permits: Arc<Semaphore>,
    /// Room for streams.
    streams: Arc<Semaphore>,
    presence: watch::Sender<Presence>,
}

/// Whether a client is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Presence {
    Here,
    /// No more of its requests are read: its streams end, its calls are answered.
    Leaving,
    /// It has closed both its ends: nobody wants what its requests under way may yet give.
    Gone,
}

/// One call or stream under way.
pub(super) struct Work {
    client: Arc<Client>,
    permit: OwnedSemaphorePermit,
}

impl Clients {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Clients { limits, table: Mutex::default() })
    }

    /// A seat for a newcomer, or `None` if every seat is in use.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Client> {
        let (id, leave) = self.table().admit(&self.limits, Instant::now())?;
        let permits = Arc::new(Semaphore::new(self.limits.in_flight));
        let streams = Arc::new(Semaphore::new(self.limits.streams));
        let presence = watch::Sender::new(Presence::Here);
        Some(Client { id, clients: self.clone(), leave, permits, streams, presence })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is locked; were it so, the table would still be whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Waits until one more call may be under way, and counts it; `None` if the seat has been given to another.
    pub(super) async fn begin(self: &Arc<Self>) -> Option<Work> {
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        self.clients.table().begin(self.id).then(|| Work { client: self.clone(), permit })
    }

    /// Resolves once the seat has been given to another.
    pub(super) async fn evicted(&self) {
        self.leave.notified().await;
    }

    /// The connection is to end: of streams nothing more comes.
    pub(super) fn leave(&self) {
        self.becomes(Presence::Leaving);
    }

    /// The client has closed both its ends.
    pub(super) fn hang_up(&self) {
        self.becomes(Presence::Gone);
    }

    /// Resolves once the connection is to end, unless its client has hung up.
    pub(super) async fn leaving(&self) {
        self.until(Presence::Leaving).await;
    }

    /// Resolves once the client has closed both its ends.
    pub(super) async fn gone(&self) {
        self.until(Presence::Gone).await;
    }

    fn becomes(&self, next: Presence) {
        self.presence.send_modify(|presence| *presence = next.max(*presence));
    }

    async fn until(&self, wanted: Presence) {
        // It cannot fail: the sender is this client's.
        let _ = self.presence.subscribe().wait_for(|presence| *presence == wanted).await;
    }
}

impl Work {
    /// Whose it is.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Turns a call into a stream, which takes no call's room; `false` if there are as many streams as there may be.
    pub(super) fn becomes_stream(&mut self) -> bool {
        match self.client.streams.clone().try_acquire_owned() {
            Ok(permit) => {
                self.permit = permit;
                true
            }
            Err(_) => false,
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.clients.table().seats.remove(&self.id);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.client.clients.table().end(self.client.id, Instant::now());
    }
}

impl Table {
    fn admit(&mut self, limits: &Limits, now: Instant) -> Option<(u64, Arc<Notify>)> {
        if self.seats.len() >= limits.clients {
            let idlest = self
                .seats
                .iter()
                .filter(|(_, seat)| seat.busy == 0 && now - seat.idle_since > limits.seat)
                .min_by_key(|(_, seat)| seat.idle_since)
                .map(|(id, _)| *id)?;
            if let Some(seat) = self.seats.remove(&idlest) {
                seat.leave.notify_one();
            }
        }
        let id = self.next;
        self.next += 1;
        let leave = Arc::new(Notify::new());
        self.seats.insert(id, Seat { busy: 0, idle_since: now, leave: leave.clone() });
        Some((id, leave))
    }

    /// Whether the client still has a seat, and so may begin a call.
    fn begin(&mut self, id: u64) -> bool {
        match self.seats.get_mut(&id) {
            Some(seat) => {
                seat.busy += 1;
                true
            }
            None => false,
        }
    }

    fn end(&mut self, id: u64, now: Instant) {
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.busy -= 1;
            seat.idle_since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A table with two seats, each kept for a second, at some moments in milliseconds.
    struct Room {
        table: Table,
        limits: Limits,
        start: Instant,
    }

    impl Room {
        fn new() -> Self {
            let limits = Limits { clients: 2, seat: Duration::from_secs(1), ..Limits::default() };
            Room { table: Table::default(), limits, start: Instant::now() }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn admit(&mut self, ms: u64) -> Option<u64> {
            self.table.admit(&self.limits, self.at(ms)).map(|(id, _)| id)
        }

        fn seated(&self) -> Vec<u64> {
            let mut ids: Vec<u64> = self.table.seats.keys().copied().collect();
            ids.sort_unstable();
            ids
        }
    }

    #[test]
    fn the_longest_idle_client_gives_way_but_not_at_once() {
        let mut room = Room::new();
        assert_eq!([room.admit(0), room.admit(600)], [Some(0), Some(1)]);
        assert_eq!(room.admit(1000), None, "nobody has been idle for more than a second");
        assert_eq!(room.admit(1001), Some(2));
        assert_eq!(room.seated(), [1, 2]);
        assert_eq!(room.admit(1600), None);
        assert_eq!(room.admit(1601), Some(3));
        assert_eq!(room.seated(), [2, 3]);
    }

    #[test]
    fn a_client_with_a_call_under_way_keeps_its_seat() {
        let mut room = Room::new();
        assert_eq!([room.admit(0), room.admit(1)], [Some(0), Some(1)]);
        assert!(room.table.begin(0) && room.table.begin(0));
        assert_eq!(room.admit(9000), Some(2), "the idle one's");
        assert!(!room.table.begin(1), "who was evicted begins nothing");
        assert!(room.table.begin(2));
        room.table.end(0, room.at(9100));
        assert_eq!(room.admit(19_000), None, "each has one under way");
        room.table.end(0, room.at(19_500));
        assert_eq!(room.admit(20_000), None, "idle only since 19.5 s");
        assert_eq!(room.admit(20_501), Some(3));
        assert_eq!(room.seated(), [2, 3]);
    }

    #[tokio::test]
    async fn who_is_evicted_is_told_and_gives_no_second_seat_back() {
        let clients = Clients::new(Limits { clients: 1, seat: Duration::ZERO, ..Limits::default() });
        let first = Arc::new(clients.admit().expect("a seat"));
        let second = clients.admit().expect("the first one's");
        first.evicted().await;
        assert!(first.begin().await.is_none());
        drop(first);
        assert_eq!(clients.table().seats.len(), 1);
        drop(second);
        assert_eq!(clients.table().seats.len(), 0);
    }
}
