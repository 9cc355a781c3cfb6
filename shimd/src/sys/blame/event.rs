//! What fanotify writes, taken apart. Pure: bytes in, events out, and no length in them is trusted.
//!
//! Source: fanotify(7), `include/uapi/linux/fanotify.h`; native byte order.
//!
//! ```text
//! event   24 B   u32 event_len; u8 vers; u8; u16 metadata_len; u64 mask; i32 fd; i32 pid    then records up to event_len
//! record   4 B   u8 type; u8; u16 len                                                       then its body up to len
//!   2, 10, 12    i32 fsid[2]; u32 handle_bytes; i32 handle_type; handle; name, NUL          folder and name: here, old, new
//!   3            the same without a name                                                    the folder itself
//!   4            i32 pidfd                                                                   or FAN_NOPIDFD, FAN_EPIDFD
//! ```

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;

const EVENT_HEAD: usize = 24;
const RECORD_HEAD: usize = 4;

/// A folder as the kernel names it: the file system's id and the file's handle in it (name_to_handle_at(2)).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    pub fsid: [i32; 2],
    pub kind: i32,
    pub handle: Vec<u8>,
}

/// Which end of an event a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The one name of an event that is no rename.
    Here,
    /// The name that was given up.
    Old,
    /// The name that was taken.
    New,
}

/// A name in a folder; `.` is the folder itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub end: End,
    pub folder: FileId,
    pub name: OsString,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// `FAN_*` bits: several where the same process did several things to the same name before we read.
    pub mask: u64,
    /// Who did it: 0 where that process is outside our pid namespace.
    pub pid: i32,
    /// A descriptor that is ours to close from now on; `None` where the process has been reaped, or we have no
    /// descriptor left.
    pub pidfd: Option<RawFd>,
    pub entries: Vec<Entry>,
}

/// The events in `bytes`, up to the first that makes no sense.
pub(super) fn parse(mut bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some((event, rest)) = parse_event(bytes) {
        events.push(event);
        bytes = rest;
    }
    events
}

fn parse_event(bytes: &[u8]) -> Option<(Event, &[u8])> {
    let (event, rest) = bytes.split_at_checked(u32_at(bytes, 0)? as usize)?;
    if event.len() < EVENT_HEAD || *event.get(4)? != libc::FANOTIFY_METADATA_VERSION {
        return None;
    }
    let mask = u64::from_ne_bytes(event.get(8..16)?.try_into().ok()?);
    let mut parsed = Event { mask, pid: i32_at(event, 20)?, pidfd: None, entries: Vec::new() };
    // A later version may have a longer head, never a shorter one.
    let mut records = event.get(usize::from(u16_at(event, 6)?).max(EVENT_HEAD)..)?;
    while let Some((record, rest)) = split_record(records) {
        match *record.first()? {
            libc::FAN_EVENT_INFO_TYPE_PIDFD => {
                parsed.pidfd = i32_at(record, RECORD_HEAD).filter(|&fd| fd >= 0);
            }
            kind => parsed.entries.extend(parse_entry(kind, record)),
        }
        records = rest;
    }
    Some((parsed, rest))
}

fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = usize::from(u16_at(bytes, 2)?);
    (len >= RECORD_HEAD).then(|| bytes.split_at_checked(len)).flatten()
}

fn parse_entry(kind: u8, record: &[u8]) -> Option<Entry> {
    let end = match kind {
        libc::FAN_EVENT_INFO_TYPE_DFID_NAME | libc::FAN_EVENT_INFO_TYPE_DFID => End::Here,
        libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME => End::Old,
        libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => End::New,
        _ => return None,
    };
    let fsid = [i32_at(record, 4)?, i32_at(record, 8)?];
    let (handle, name) = record.get(20..)?.split_at_checked(u32_at(record, 12)? as usize)?;
    let name = match kind {
        libc::FAN_EVENT_INFO_TYPE_DFID => b".",
        _ => name.split(|&b| b == 0).next().filter(|name| !name.is_empty())?,
    };
    let folder = FileId { fsid, kind: i32_at(record, 16)?, handle: handle.to_vec() };
    Some(Entry { end, folder, name: OsString::from_vec(name.to_vec()) })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    u32_at(bytes, at).map(u32::cast_signed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, 0];
        bytes.extend((body.len() as u16 + 4).to_ne_bytes());
        bytes.extend(body);
        bytes
    }

    fn named(kind: u8, handle: &[u8], name: &[u8]) -> Vec<u8> {
        let mut body = [1_i32.to_ne_bytes(), (-2_i32).to_ne_bytes()].concat();
        body.extend((handle.len() as u32).to_ne_bytes());
        body.extend(7_i32.to_ne_bytes());
        body.extend(handle);
        body.extend(name);
        record(kind, &body)
    }

    fn event(mask: u64, pid: i32, records: &[Vec<u8>]) -> Vec<u8> {
        let records = records.concat();
        let mut bytes = (records.len() as u32 + 24).to_ne_bytes().to_vec();
        bytes.extend([libc::FANOTIFY_METADATA_VERSION, 0]);
        bytes.extend(24_u16.to_ne_bytes());
        bytes.extend(mask.to_ne_bytes());
        bytes.extend((-1_i32).to_ne_bytes());
        bytes.extend(pid.to_ne_bytes());
        bytes.extend(records);
        bytes
    }

    fn entry(end: End, handle: &[u8], name: &str) -> Entry {
        let folder = FileId { fsid: [1, -2], kind: 7, handle: handle.to_vec() };
        Entry { end, folder, name: name.into() }
    }

    #[test]
    fn events_are_read_one_after_the_other() {
        let mut bytes = event(
            libc::FAN_DELETE,
            42,
            &[named(2, b"abcd", b"rpc.sock\0\0\0"), record(4, &9_i32.to_ne_bytes())],
        );
        bytes.extend(event(
            libc::FAN_RENAME,
            0,
            &[named(10, b"abcd", b"a\0"), named(12, b"efgh", b"b\0"), record(4, &(-1_i32).to_ne_bytes())],
        ));
        bytes.extend(event(libc::FAN_ATTRIB, 43, &[named(3, b"abcd", b"")]));
        let deleted = vec![entry(End::Here, b"abcd", "rpc.sock")];
        let renamed = vec![entry(End::Old, b"abcd", "a"), entry(End::New, b"efgh", "b")];
        let itself = vec![entry(End::Here, b"abcd", ".")];
        assert_eq!(
            parse(&bytes),
            [
                Event { mask: libc::FAN_DELETE, pid: 42, pidfd: Some(9), entries: deleted },
                Event { mask: libc::FAN_RENAME, pid: 0, pidfd: None, entries: renamed },
                Event { mask: libc::FAN_ATTRIB, pid: 43, pidfd: None, entries: itself },
            ]
        );
    }

    #[test]
    fn a_record_of_an_unknown_kind_is_passed_over() {
        let bytes = event(1, 42, &[record(99, b"whatever"), named(2, b"h", b"n\0"), record(4, b"x")]);
        let known = vec![entry(End::Here, b"h", "n")];
        assert_eq!(parse(&bytes), [Event { mask: 1, pid: 42, pidfd: None, entries: known }]);
    }

    #[test]
    fn lengths_that_lie_end_the_reading() {
        let good = event(1, 42, &[named(2, b"abcd", b"n\0")]);
        let entries = |bytes: &[u8]| parse(bytes).iter().map(|e| e.entries.len()).collect::<Vec<_>>();
        let with = |at: usize, value: &[u8]| {
            let mut bytes = good.clone();
            bytes.splice(at..at + value.len(), value.iter().copied());
            bytes
        };
        assert_eq!(entries(&good), [1]);
        assert!(
            parse(&with(0, &0_u32.to_ne_bytes())).is_empty(),
            "an event of no length would be read for ever"
        );
        assert!(parse(&with(0, &u32::MAX.to_ne_bytes())).is_empty(), "an event longer than the buffer");
        assert!(parse(&with(4, &[99])).is_empty(), "another version");
        assert!(parse(&with(6, &u16::MAX.to_ne_bytes())).is_empty(), "a head longer than the event");
        assert_eq!(entries(&with(26, &0_u16.to_ne_bytes())), [0], "a record of no length");
        assert_eq!(entries(&with(26, &u16::MAX.to_ne_bytes())), [0], "a record longer than the event");
        assert_eq!(entries(&with(36, &u32::MAX.to_ne_bytes())), [0], "a handle longer than its record");
        assert_eq!(entries(&event(1, 42, &[named(2, b"abcd", b"\0")])), [0], "no name");
    }

    proptest! {
        #[test]
        fn anything_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse(&bytes);
        }

        #[test]
        fn anything_in_a_record_can_be_read(kind in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(parse(&event(1, 2, &[record(kind, &body)])).len(), 1);
        }
    }
}
