//! What the view shows and what a key does to it.

use std::collections::BTreeMap;

use ratatui::style::Style;
use shimd_api::wire::{ServiceRow, ShimInfo, SocketRow, Status};

use super::spells::Spells;

/// How far the bars go back, in nanoseconds.
pub const SPAN: i64 = 10 * 60 * 1_000_000_000;

/// What one look at the daemon gave.
#[derive(Debug, Clone)]
pub struct Look {
    /// Nanoseconds since 1970.
    pub now: i64,
    /// The daemon.
    pub info: ShimInfo,
    /// All services.
    pub services: Vec<ServiceRow>,
    /// All their sockets.
    pub sockets: Vec<SocketRow>,
}

/// All that is on the screen.
#[derive(Debug, Default)]
pub struct Model {
    /// The last look; `None` before the first.
    pub look: Option<Look>,
    /// By service.
    pub spells: BTreeMap<String, Spells>,
    /// Which service is selected, by name: it stays so when others come and go.
    pub selected: Option<String>,
    /// What is asked before it is done.
    pub question: Option<Act>,
    /// What came of the last command, or what is wrong.
    pub message: Option<String>,
    /// The styles of states and verdicts.
    pub styles: BTreeMap<String, Style>,
}

/// What a key wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Leave.
    Quit,
    /// Look at once.
    Look,
    /// `restart --clean`.
    Restart(String),
    /// `start`.
    Start(String),
    /// `stop`.
    Stop(String),
}

impl Act {
    /// What it is called in the question, and while it is under way.
    pub fn words(&self) -> String {
        match self {
            Act::Quit => "leave".into(),
            Act::Look => "check".into(),
            Act::Restart(name) => format!("restart --clean {name}"),
            Act::Start(name) => format!("start {name}"),
            Act::Stop(name) => format!("stop {name}"),
        }
    }
}

/// A key, as far as this view knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// One row up.
    Up,
    /// One row down.
    Down,
    /// The first.
    Home,
    /// The last.
    End,
    /// Ctrl-C, q or Esc.
    Quit,
    /// Any other.
    Letter(char),
}

impl Model {
    /// The style of a state or verdict.
    pub fn style(&self, word: &str) -> Style {
        self.styles.get(word).copied().unwrap_or_default()
    }

    /// Takes a look in.
    pub fn take(&mut self, look: Look) {
        for row in &look.services {
            self.spells.entry(row.name.clone()).or_default().state(look.now, row.status);
        }
        for socket in &look.sockets {
            let Some(service) = &socket.service else { continue };
            let spells = self.spells.entry(service.clone()).or_default();
            spells.note(&socket.path, look.now, &socket.verdict);
            spells.forget_before(look.now - SPAN);
        }
        let known = |name: &String| look.services.iter().any(|row| row.name == *name);
        self.spells.retain(|name, _| known(name));
        if !self.selected.as_ref().is_some_and(known) {
            self.selected = look.services.first().map(|row| row.name.clone());
        }
        self.look = Some(look);
    }

    /// The services in their order.
    pub fn services(&self) -> &[ServiceRow] {
        self.look.as_ref().map_or(&[], |look| &look.services)
    }

    /// Which row is selected.
    pub fn at(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.services().iter().position(|row| row.name == *selected)
    }

    /// The sockets of the selected service.
    pub fn sockets(&self) -> impl Iterator<Item = &SocketRow> {
        let sockets = self.look.iter().flat_map(|look| &look.sockets);
        sockets.filter(|socket| socket.service.is_some() && socket.service == self.selected)
    }

    /// How many services are in each state that is worth a word.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count =
            |wanted: &dyn Fn(Status) -> bool| self.services().iter().filter(|row| wanted(row.status)).count();
        let running = count(&|status| status == Status::Running);
        let failed = count(&|status| matches!(status, Status::Failed | Status::Backoff));
        (running, failed, self.services().len() - running - failed)
    }

    /// What a key does; what is to be done by others is given.
    pub fn key(&mut self, key: Key) -> Option<Act> {
        if let Some(asked) = self.question.take() {
            return match key {
                Key::Letter('y' | 'Y') => {
                    self.message = Some(format!("{} …", asked.words()));
                    Some(asked)
                }
                // Anything else is a no, and Ctrl-C leaves all the same.
                Key::Quit => Some(Act::Quit),
                _ => None,
            };
        }
        match key {
            Key::Quit => return Some(Act::Quit),
            Key::Up => self.step(-1),
            Key::Down => self.step(1),
            Key::Home => self.step(isize::MIN),
            Key::End => self.step(isize::MAX),
            Key::Letter('q') => return Some(Act::Quit),
            Key::Letter('k') => self.step(-1),
            Key::Letter('j') => self.step(1),
            Key::Letter('c') => {
                self.message = Some("checked".into());
                return Some(Act::Look);
            }
            Key::Letter(letter) => {
                let name = self.selected.clone()?;
                self.question = match letter {
                    'r' => Some(Act::Restart(name)),
                    's' => Some(Act::Start(name)),
                    'x' => Some(Act::Stop(name)),
                    _ => None,
                };
            }
        }
        None
    }

    fn step(&mut self, by: isize) {
        let Some(last) = self.services().len().checked_sub(1) else { return };
        let at = self.at().unwrap_or(0).saturating_add_signed(by).min(last);
        self.selected = self.services().get(at).map(|row| row.name.clone());
        self.message = None;
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::json;

    /// A look at services of these names; those that begin with `bad` have lost their socket.
    pub fn look(names: &[&str], now: i64) -> Look {
        let services = names.iter().map(|name| {
            let (status, why) =
                if name.starts_with("bad") { ("failed", Some("declared socket missing on disk: rpc.sock")) } else { ("running", None) };
            json!({ "name": name, "status": status, "health_reason": why, "pid": 4711, "uptime": 3_723_000_000_000_i64,
                "restarts": 2, "sockets_ok": u32::from(why.is_none()), "sockets": 1 })
        });
        let sockets = names.iter().map(|name| {
            let verdict = if name.starts_with("bad") { "dangling" } else { "ok" };
            json!({ "service": name, "socket": "rpc.sock", "path": format!("/run/{name}/rpc.sock"), "verdict": verdict,
                "reason": (verdict != "ok").then_some("removed by rm (pid 99, uid 0)"), "pid": 4711, "inode": 1,
                "pending": 0, "backlog": 128, "since": null, "culprit": null, "relinked": 3 })
        });
        let info = json!({ "pid": 1, "version": "0.1.0", "uptime": 5_000_000_000_i64, "services": names.len(),
            "socket": "/run/shimd/rpc.sock", "home": "/var/lib/shimd", "socket_root": "/run/s", "troubles": [] });
        Look {
            now,
            info: serde_json::from_value(info).unwrap(),
            services: services.map(|row| serde_json::from_value(row).unwrap()).collect(),
            sockets: sockets.map(|row| serde_json::from_value(row).unwrap()).collect(),
        }
    }

    #[test]
    fn the_selection_stays_with_its_service() {
        let mut model = Model::default();
        assert_eq!(model.key(Key::Down), None);
        model.take(look(&["a", "b", "c"], 1));
        assert_eq!(model.selected.as_deref(), Some("a"));
        model.key(Key::Down);
        model.take(look(&["0", "a", "b"], 2));
        assert_eq!((model.selected.as_deref(), model.at()), (Some("b"), Some(2)));
        model.key(Key::Down);
        assert_eq!(model.at(), Some(2));
        model.key(Key::Home);
        model.key(Key::Up);
        assert_eq!(model.at(), Some(0));
        model.take(look(&["x"], 3));
        assert_eq!(model.selected.as_deref(), Some("x"));
    }

    #[test]
    fn what_changes_a_service_is_asked_for_first() {
        let mut model = Model::default();
        model.take(look(&["web"], 1));
        assert_eq!(model.key(Key::Letter('r')), None);
        assert_eq!(model.key(Key::Letter('n')), None);
        assert_eq!(model.question, None);
        model.key(Key::Letter('r'));
        assert_eq!(model.key(Key::Letter('y')), Some(Act::Restart("web".into())));
        model.key(Key::Letter('x'));
        assert_eq!(model.key(Key::Quit), Some(Act::Quit));
        assert_eq!(model.key(Key::Letter('c')), Some(Act::Look));
    }

    #[test]
    fn without_services_nothing_is_asked() {
        let mut model = Model::default();
        model.take(look(&[], 1));
        assert_eq!((model.key(Key::Letter('r')), model.question.clone(), model.at()), (None, None, None));
        assert_eq!(model.counts(), (0, 0, 0));
    }
}
