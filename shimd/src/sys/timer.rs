//! A timer that is exact to some 50 microseconds, timerfd_create(2). Tokio's own counts whole milliseconds, and a millisecond
//! is longer than many a server takes from its bind to its listen.
#![allow(unsafe_code)] // a descriptor is tied to the runtime

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Instant;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One timer, for one wait at a time.
#[derive(Debug)]
pub struct FineTimer(Option<AsyncFd<Descriptor>>);

#[derive(Debug)]
struct Descriptor(TimerFd);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl FineTimer {
    /// Within a tokio runtime. Where no descriptor is to be had, it is as exact as tokio's.
    pub fn start() -> FineTimer {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).ok();
        FineTimer(timer.and_then(|timer| {
            // SAFETY: the timer owns its descriptor and is never exchanged.
            unsafe { AsyncFd::register_with_interest(Descriptor(timer), Interest::READABLE) }.ok()
        }))
    }

    /// Returns at `at`, or a little later. May be dropped and begun anew at any time.
    pub async fn until(&self, at: Instant) {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let set = |timer: &AsyncFd<Descriptor>| {
            let once = Expiration::OneShot(TimeSpec::from_duration(left));
            timer.get_ref().0.set(once, TimerSetTimeFlags::empty()).is_ok()
        };
        let Some(timer) = self.0.as_ref().filter(|timer| set(timer)) else {
            return tokio::time::sleep_until(at.into()).await;
        };
        while Instant::now() < at {
            match timer.readable().await {
                Ok(mut ready) => ready.clear_ready(),
                Err(_) => return tokio::time::sleep_until(at.into()).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_returns_after_its_time_and_can_be_begun_anew() {
        let timer = FineTimer::start();
        assert!(timer.0.is_some());
        for timer in [timer, FineTimer(None)] {
            let begun = Instant::now();
            let long = timer.until(begun + Duration::from_secs(3600));
            assert!(tokio::time::timeout(Duration::from_millis(2), long).await.is_err(), "not yet");
            for micros in [1, 100, 2_000] {
                let at = Instant::now() + Duration::from_micros(micros);
                timer.until(at).await;
                assert!(Instant::now() >= at);
            }
            timer.until(begun).await;
            assert!(begun.elapsed() < Duration::from_secs(60));
        }
    }
}
