//! Listeners that nobody asks for anything: they come and go.

use crate::Result;
use std::collections::VecDeque;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

/// Binds `count` listeners beside the path, then replaces the oldest of them each millisecond, on a thread of its own.
pub fn churn(path: &Path, count: usize) -> Result {
    let folder = path.parent().ok_or("no folder")?.to_owned();
    let mut number = 0_usize;
    let mut next = move || {
        // A name comes again once its listener is gone: whatever the last one left is not in the way.
        let place = folder.join(format!("churn-{}-{}", std::process::id(), number % (count + 1)));
        number += 1;
        UnixListener::bind(&place).map(|listener| (listener, place))
    };
    let mut living = (0..count).map(|_| next()).collect::<std::io::Result<VecDeque<_>>>()?;
    std::thread::spawn(move || {
        while let Ok(newest) = next() {
            living.push_back(newest);
            if let Some((listener, place)) = living.pop_front() {
                drop(listener);
                // Gone already is as good as removed.
                let _ = fs::remove_file(place);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    Ok(())
}
