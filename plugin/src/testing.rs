//! What the tests share.

mod fake;
mod folder;
mod nu;

pub use fake::Manner;
pub use folder::Folder;
pub use nu::Nu;

/// A stand-in for the daemon, in a home of its own.
pub struct FakeDaemon {
    daemon: fake::FakeDaemon,
    home: Folder,
}

impl FakeDaemon {
    /// One of good manners.
    pub fn start() -> FakeDaemon {
        Self::with(Manner::Good)
    }

    /// One of these manners.
    pub fn with(manner: Manner) -> FakeDaemon {
        let home = Folder::new();
        // A pid that no process has: beyond the kernel's largest.
        FakeDaemon { daemon: fake::FakeDaemon::at(home.path(), manner, 4_194_305), home }
    }

    /// Its `SHIMD_HOME`.
    pub fn home(&self) -> &std::path::Path {
        self.home.path()
    }

    /// Tells the followers an event, without its `id`.
    pub fn emit(&self, event: serde_json::Value) {
        self.daemon.emit(event);
    }

    /// Has a service write what its followers are told; an `error` ends the log.
    pub fn write(&self, lines: serde_json::Value) {
        self.daemon.write(lines);
    }

    /// How many follow events.
    pub fn followers(&self) -> usize {
        self.daemon.followers()
    }

    /// Hangs up on the followers.
    pub fn end_streams(&self) {
        self.daemon.end_streams();
    }

    /// What it was asked, `shim.info` left out.
    pub fn requests(&self) -> Vec<serde_json::Value> {
        self.daemon.requests()
    }
}

/// A cell of nested records.
pub fn at(value: &nu_protocol::Value, path: &[&str]) -> nu_protocol::Value {
    path.iter().fold(value.clone(), |value, column| {
        value.as_record().unwrap().get(column).unwrap_or_else(|| panic!("no {column}")).clone()
    })
}
