//! Rows as they happen, for eyes: on a terminal `table` would keep the last ones to itself.
//!
//! Nushell's `table` shows what has come once a row comes later than `batch_duration` (1 s) after it began to wait, and
//! looks at the clock only then. What came in one go stays unseen until something else happens, which may be days: the
//! whole past of a log that is followed, the first look of a watch. So the last row of what comes in one go is held back
//! until that time is over; it makes `table` show all of them. A row that comes alone is passed on at once, and so is
//! each row where no terminal is.

use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use nu_plugin::EngineInterface;
use nu_protocol::LabeledError;

/// What a row's way to `table`, and showing the ones before it, may take.
const WAY: Duration = Duration::from_millis(250);

/// So many rows may wait for their reader.
const WAITING: usize = 256;

type Row<T> = Result<T, LabeledError>;

/// The same rows, in time for a `table` on a terminal.
///
/// # Errors
/// Nushell's own.
pub fn paced<T: Send + 'static>(
    rows: impl Iterator<Item = Row<T>> + Send + 'static,
    engine: &EngineInterface,
) -> Result<Box<dyn Iterator<Item = Row<T>> + Send>, LabeledError> {
    if !std::io::stdout().is_terminal() {
        return Ok(Box::new(rows));
    }
    let pause = engine.get_config()?.table.batch_duration + WAY;
    Ok(Box::new(Paced::of(rows, pause)))
}

/// Rows of which the last that came holds until it is alone.
struct Paced<T> {
    rows: Receiver<Row<T>>,
    pause: Duration,
    /// When a row was passed on, or the first was asked for.
    passed: Instant,
    held: Option<Row<T>>,
}

impl<T: Send + 'static> Paced<T> {
    fn of(rows: impl Iterator<Item = Row<T>> + Send + 'static, pause: Duration) -> Paced<T> {
        let (sender, receiver) = sync_channel(WAITING);
        thread::spawn(move || {
            // It ends with the reader, or with the rows.
            rows.into_iter().try_for_each(|row| sender.send(row))
        });
        Paced { rows: receiver, pause, passed: Instant::now(), held: None }
    }
}

impl<T> Iterator for Paced<T> {
    type Item = Row<T>;

    fn next(&mut self) -> Option<Row<T>> {
        let row = match self.held.take() {
            Some(row) => row,
            None => self.rows.recv().ok()?,
        };
        let left = self.pause.saturating_sub(self.passed.elapsed());
        if row.is_ok() && !left.is_zero() {
            match self.rows.recv_timeout(left) {
                Ok(next) => self.held = Some(next),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        self.passed = Instant::now();
        Some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const PAUSE: Duration = Duration::from_millis(200);

    #[test]
    fn the_last_of_what_comes_in_one_go_is_held_back() {
        let (sender, rows) = channel();
        let mut paced = Paced::of(rows.into_iter(), PAUSE);
        let began = Instant::now();
        for number in 1..=3 {
            sender.send(Ok(number)).unwrap();
        }
        let mut next = || (paced.next().map(Result::ok), began.elapsed());
        assert_eq!((next().0, next().0), (Some(Some(1)), Some(Some(2))));
        let (last, when) = next();
        assert!(last == Some(Some(3)) && when >= PAUSE, "{when:?}");
        // One that comes alone, and an error, are not.
        thread::sleep(PAUSE);
        sender.send(Ok(4)).unwrap();
        let began = Instant::now();
        assert_eq!(next().0, Some(Some(4)));
        sender.send(Err(LabeledError::new("gone"))).unwrap();
        assert_eq!(next().0, Some(None));
        assert!(began.elapsed() < PAUSE, "{:?}", began.elapsed());
        sender.send(Ok(5)).unwrap();
        drop(sender);
        assert_eq!((next().0, next().0), (Some(Some(5)), None));
        assert!(began.elapsed() < PAUSE, "nothing comes after it: {:?}", began.elapsed());
    }
}
