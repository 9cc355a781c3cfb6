//! Descriptors that are held for nothing but to be let go: when all are taken, a client can be accepted all the same, and
//! told what is wrong.

use std::fs::File;
use std::io;

use nix::errno::Errno;

/// Clients that can be served at once when no other descriptor is left.
const HELD: usize = 4;

/// The descriptors.
#[derive(Debug)]
pub(super) struct Reserve(Vec<File>);

impl Reserve {
    /// As many as can be had.
    pub(super) fn new() -> Reserve {
        let mut reserve = Reserve(Vec::with_capacity(HELD));
        reserve.refill();
        reserve
    }

    /// Whether accept(2) may now do, which had failed for want of a descriptor.
    pub(super) fn makes_room(&mut self, error: &io::Error) -> bool {
        let short = matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE));
        short && self.0.pop().is_some()
    }

    /// Takes back what was let go, as far as there is something.
    pub(super) fn refill(&mut self) {
        while self.0.len() < HELD {
            match File::open("/dev/null") {
                Ok(file) => self.0.push(file),
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_as_often_as_it_is_held() {
        let mut reserve = Reserve::new();
        let full = io::Error::from(Errno::EMFILE);
        assert!(!reserve.makes_room(&Errno::ECONNABORTED.into()));
        assert_eq!((0..10).filter(|_| reserve.makes_room(&full)).count(), HELD);
        reserve.refill();
        assert!(reserve.makes_room(&full));
    }
}
