//! Signals as specs name them: `SIGTERM`, `TERM`, `SIGRTMIN+3`, `15` (signal(7)).

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::number::whole_number;

/// The signal of a name, with or without `SIG`, in any case; or of a number in digits.
pub(crate) fn by_name(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return Some(number).filter(is_signal);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    // "+3" and "-3" parse as the numbers that they add; a bare name adds none.
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest if rest.starts_with(sign) => rest.parse::<i32>().ok(),
        _ => None,
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        libc::SIGRTMIN().checked_add(offset(rest, '+')?)?
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        libc::SIGRTMAX().checked_add(offset(rest, '-')?)?
    } else {
        return format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32);
    };
    Some(number).filter(is_real_time)
}

/// The signal of a JSON number.
pub(crate) fn by_number(value: &Value) -> Option<i32> {
    i32::try_from(whole_number(value)?).ok().filter(is_signal)
}

/// Signals that can be sent: those with a name, and the real-time ones (32 and 33 are the C library's own).
fn is_signal(number: &i32) -> bool {
    Signal::try_from(*number).is_ok() || is_real_time(number)
}

fn is_real_time(number: &i32) -> bool {
    (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(number)
}
