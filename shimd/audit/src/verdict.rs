//! The verdict on one socket: a pure decision over a few facts.
//!
//! - *at*: what lies at the path: `nothing`, a `socket`, a symbolic `link` that leads to a socket, some
//!   `other` file (a link that leads nowhere included), `hidden` (the folder may not be searched), or `shut`
//!   (it may not, and the listener bound there is this very user's: so its owner cannot get to it either).
//! - *there*: who has bound the inode that a client reaches at the path: `nobody`, the service itself
//!   (`own`), processes outside it (`others`); with `-soon` if the socket is bound and does not listen
//!   yet; `unclear` if the kernel or `/proc` would not say. With nothing at the path this plays no part.
//! - *away*: whether a listener that the service has bound for this path lives on some other inode:
//!   `no`, `yes`, `unclear`.
//! - *kind*: whether the socket there has the declared type (`fits`, `wrong`).
//! - *access*: whether those who are to connect may search the folders and write to the socket (`open`,
//!   `closed`; [`crate::Peers`] says who they are).
//! - *queue*: whether connections can be taken: the queue is `full` (more wait than the backlog has room for:
//!   a further client hangs), or some wait and every process that is known to listen is `stopped` (SIGSTOP,
//!   a debugger), or it `flows`. The last two are asked only of the service's own listener at the path.
//!
//! The first row that fits decides; `*` fits all, a comma reads "or". A test holds `decide` to this table.
//!
//! | at          | there               | away    | kind  | access | queue        | verdict    |
//! | ----------- | ------------------- | ------- | ----- | ------ | ------------ | ---------- |
//! | hidden      | *                   | *       | *     | *      | *            | unknown    |
//! | shut        | *                   | *       | *     | *      | *            | denied     |
//! | nothing     | *                   | yes     | *     | *      | *            | dangling   |
//! | nothing     | *                   | no      | *     | *      | *            | absent     |
//! | nothing     | *                   | unclear | *     | *      | *            | unknown    |
//! | other       | *                   | yes     | *     | *      | *            | replaced   |
//! | other       | *                   | no      | *     | *      | *            | not-socket |
//! | other       | *                   | unclear | *     | *      | *            | unknown    |
//! | socket,link | unclear             | yes     | *     | *      | *            | replaced   |
//! | socket,link | unclear             | *       | *     | *      | *            | unknown    |
//! | socket,link | own                 | *       | fits  | closed | *            | denied     |
//! | socket,link | own                 | *       | fits  | open   | full,stopped | wedged     |
//! | socket,link | own                 | *       | fits  | open   | flows        | ok         |
//! | socket,link | own-soon            | *       | fits  | *      | *            | unknown    |
//! | socket,link | own,own-soon        | *       | wrong | *      | *            | replaced   |
//! | socket,link | others,others-soon  | yes     | *     | *      | *            | replaced   |
//! | socket,link | others,others-soon  | *       | *     | *      | *            | foreign    |
//! | socket,link | nobody              | yes     | *     | *      | *            | replaced   |
//! | socket,link | nobody              | unclear | *     | *      | *            | unknown    |
//! | socket      | nobody              | no      | *     | *      | *            | stale      |
//! | link        | nobody              | no      | *     | *      | *            | not-socket |
//!
//! Choices that the table makes:
//! - The service's listener at the path wins over an older one of its own that still drains elsewhere.
//! - A link that leads to the service's listener is `ok`: clients get through. A link is never `stale`,
//!   for what is stale may be removed, and a link may not.
//! - A socket that is bound and does not listen yet (real servers stay so for up to half a second) refuses
//!   clients like a stale one, but must not be removed: `unknown`, and not `ok`.
//! - The service's own socket of another type than declared (clients get EPROTOTYPE) is `replaced`: what
//!   lies at the path is not the declared socket.
//! - Connections that wait while the queue has room and the service runs leave `ok`: only time tells a slow
//!   server from one that accepts none, and one look has no time. Whoever looks again keeps a [`crate::Queue`].
//! - A datagram socket is never `wedged`: what waits there is counted in bytes, and bytes say nothing of room.
//! - Who may not connect does not wait: `denied` wins over `wedged`.

use serde::{Deserialize, Serialize};

/// What an audit says of one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The service listens on the socket at the path: a client gets an answer.
    Ok,
    /// Nothing at the path while the listener lives: ENOENT.
    Dangling,
    /// Something else than the live listener's inode at the path: the wrong server, or a refusal.
    Replaced,
    /// A process outside the service listens at the path: the wrong server.
    Foreign,
    /// A socket file that nobody listens on: ECONNREFUSED.
    Stale,
    /// A file, folder or link that is no socket, and nobody listens: ECONNREFUSED.
    NotSocket,
    /// Nothing at the path and nobody listens: ENOENT.
    Absent,
    /// The service listens on the socket at the path, and takes no connections: a hang.
    Wedged,
    /// The service listens on the socket at the path, and its peers may not get there: EACCES.
    Denied,
    /// The truth could not be had, or is not settled yet. Never a ground to remove anything.
    Unknown,
}

impl Verdict {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Dangling => "dangling",
            Verdict::Replaced => "replaced",
            Verdict::Foreign => "foreign",
            Verdict::Stale => "stale",
            Verdict::NotSocket => "not-socket",
            Verdict::Absent => "absent",
            Verdict::Wedged => "wedged",
            Verdict::Denied => "denied",
            Verdict::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What lies at the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum At {
    /// No directory entry.
    Nothing,
    /// A socket.
    Socket,
    /// A symbolic link that leads to a socket.
    Link,
    /// A file, folder, pipe, device, or a link that leads to none or to no socket.
    Other,
    /// The directory could not be searched.
    Hidden,
    /// The directory may not be searched by the user who created the listener that is bound in it.
    Shut,
}

/// How far the socket at the path has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It takes connections or datagrams.
    Listening,
    /// It is bound, and `listen` has not been called.
    Soon,
}

/// Who has bound the inode at the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum There {
    /// No live socket.
    Nobody,
    /// The service.
    Own(Stage),
    /// Processes outside the service.
    Others(Stage),
    /// The kernel or `/proc` would not say.
    Unclear,
}

/// Whether a listener of the service, bound for this path, lives on another inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Away {
    /// None does.
    No,
    /// One does.
    Yes,
    /// The kernel or `/proc` would not say.
    Unclear,
}

/// Whether those who are to connect may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// As far as is known.
    Open,
    /// Somebody may not.
    Closed,
}

/// Whether a listener's connections can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueState {
    /// As far as one look tells.
    Flows,
    /// More wait than there is room for.
    Full,
    /// Some wait, and every process known to listen is stopped.
    Stopped,
}

/// Everything a verdict rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Facts {
    /// What lies at the path.
    pub at: At,
    /// Who has bound the inode there.
    pub there: There,
    /// Whether the service's listener lives on another inode.
    pub away: Away,
    /// Whether the socket there has the declared type (true when none is declared).
    pub kind_fits: bool,
    /// Whether those who are to connect may; `Open` of any listener but the service's own at the path.
    pub access: Access,
    /// Whether its connections can be taken; `Flows` of any listener but the service's own at the path.
    pub queue: QueueState,
}

/// Decides by the table in the module's header.
pub fn decide(facts: &Facts) -> Verdict {
    match (facts.at, facts.there, facts.away) {
        (At::Hidden, _, _) => Verdict::Unknown,
        (At::Shut, _, _) => Verdict::Denied,
        (At::Nothing, _, Away::Yes) => Verdict::Dangling,
        (At::Nothing, _, Away::No) => Verdict::Absent,
        (At::Other, _, Away::Yes) => Verdict::Replaced,
        (At::Other, _, Away::No) => Verdict::NotSocket,
        (At::Nothing | At::Other, _, Away::Unclear) => Verdict::Unknown,
        (At::Socket | At::Link, There::Unclear, Away::Yes) => Verdict::Replaced,
        (At::Socket | At::Link, There::Unclear, Away::No | Away::Unclear) => Verdict::Unknown,
        (At::Socket | At::Link, There::Own(stage), _) => match (stage, facts.kind_fits) {
            (Stage::Listening, true) => match (facts.access, facts.queue) {
                (Access::Closed, _) => Verdict::Denied,
                (Access::Open, QueueState::Full | QueueState::Stopped) => Verdict::Wedged,
                (Access::Open, QueueState::Flows) => Verdict::Ok,
            },
            (Stage::Soon, true) => Verdict::Unknown,
            (Stage::Listening | Stage::Soon, false) => Verdict::Replaced,
        },
        (At::Socket | At::Link, There::Others(_), Away::Yes) => Verdict::Replaced,
        (At::Socket | At::Link, There::Others(_), Away::No | Away::Unclear) => Verdict::Foreign,
        (At::Socket | At::Link, There::Nobody, Away::Yes) => Verdict::Replaced,
        (At::Socket | At::Link, There::Nobody, Away::Unclear) => Verdict::Unknown,
        (At::Socket, There::Nobody, Away::No) => Verdict::Stale,
        (At::Link, There::Nobody, Away::No) => Verdict::NotSocket,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the header: six patterns and a verdict each.
    fn table() -> Vec<Vec<&'static str>> {
        include_str!("verdict.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! | "))
            .map(|row| row.trim_end_matches('|').split('|').map(str::trim).collect::<Vec<_>>())
            .filter(|row| row[0] != "at" && !row[0].starts_with("--"))
            .collect()
    }

    fn every_fact() -> Vec<Facts> {
        let stages = [Stage::Listening, Stage::Soon];
        let mut theres = vec![There::Nobody, There::Unclear];
        theres.extend(stages.map(There::Own));
        theres.extend(stages.map(There::Others));
        let mut all = Vec::new();
        for at in [At::Nothing, At::Socket, At::Link, At::Other, At::Hidden, At::Shut] {
            for &there in &theres {
                for away in [Away::No, Away::Yes, Away::Unclear] {
                    for kind_fits in [true, false] {
                        for access in [Access::Open, Access::Closed] {
                            for queue in [QueueState::Flows, QueueState::Full, QueueState::Stopped] {
                                all.push(Facts { at, there, away, kind_fits, access, queue });
                            }
                        }
                    }
                }
            }
        }
        all
    }

    fn words(facts: &Facts) -> [&'static str; 6] {
        let at = match facts.at {
            At::Nothing => "nothing",
            At::Socket => "socket",
            At::Link => "link",
            At::Other => "other",
            At::Hidden => "hidden",
            At::Shut => "shut",
        };
        let there = match facts.there {
            There::Nobody => "nobody",
            There::Own(Stage::Listening) => "own",
            There::Own(Stage::Soon) => "own-soon",
            There::Others(Stage::Listening) => "others",
            There::Others(Stage::Soon) => "others-soon",
            There::Unclear => "unclear",
        };
        let away = match facts.away {
            Away::No => "no",
            Away::Yes => "yes",
            Away::Unclear => "unclear",
        };
        let access = match facts.access {
            Access::Open => "open",
            Access::Closed => "closed",
        };
        let queue = match facts.queue {
            QueueState::Flows => "flows",
            QueueState::Full => "full",
            QueueState::Stopped => "stopped",
        };
        [at, there, away, if facts.kind_fits { "fits" } else { "wrong" }, access, queue]
    }

    #[test]
    fn the_header_table_is_what_decide_does() {
        let table = table();
        let mut used = vec![false; table.len()];
        for facts in every_fact() {
            let words = words(&facts);
            let row = table.iter().position(|row| {
                words.iter().zip(row).all(|(word, pattern)| {
                    *pattern == "*" || pattern.split(',').any(|alternative| alternative.trim() == *word)
                })
            });
            let row = row.unwrap_or_else(|| panic!("no row of the table fits {facts:?}"));
            used[row] = true;
            assert_eq!(decide(&facts).as_str(), table[row][6], "{facts:?}");
        }
        let idle: Vec<_> = table.iter().zip(&used).filter(|(_, used)| !**used).collect();
        assert!(idle.is_empty(), "rows that never decide: {idle:?}");
    }

    #[test]
    fn ok_only_when_a_client_reaches_the_service_and_stale_only_when_nobody_could_be_there() {
        for facts in every_fact() {
            let there = matches!(facts.at, At::Socket | At::Link)
                && facts.there == There::Own(Stage::Listening)
                && facts.kind_fits;
            let reaches = there && facts.access == Access::Open;
            let answered = reaches && facts.queue == QueueState::Flows;
            assert_eq!(decide(&facts) == Verdict::Ok, answered, "{facts:?}");
            assert_eq!(decide(&facts) == Verdict::Wedged, reaches && !answered, "{facts:?}");
            if decide(&facts) == Verdict::Stale {
                assert_eq!((facts.at, facts.there, facts.away), (At::Socket, There::Nobody, Away::No));
            }
        }
    }
}
