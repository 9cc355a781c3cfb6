//! The daemon's own home, while it runs. Somebody may remove it, move it away, or put an older one in its place: services and
//! clients are none the worse for it, and what the next daemon needs to find them is made again.
//!
//! | lost | then |
//! | --- | --- |
//! | a folder | made again, for this user alone |
//! | the lock's file | taken anew; a second daemon that comes up before that sees that this one listens, and ends |
//! | `state.db`, or its log | written anew from what is open ([`Store::write_anew`](crate::store::Store::write_anew)) |
//! | the control socket | see `control` |
//! | a service's log files | made again with its next instance: one that runs writes on to those that it has |
//!
//! Looked at when the run folder tells of something, and in each period.

use super::Supervisor;
use crate::sys::folder;

/// The trouble by which it is said.
const TROUBLE: &str = "home";

impl Supervisor {
    /// Sees to it that the home is what the next daemon needs: some looks at files, where nothing is amiss.
    pub(super) fn mind_home(&mut self) {
        if let Err(e) = self.make_home() {
            self.home_trouble(e.to_string());
            return;
        }
        match self.lock.renew() {
            Ok(false) => {}
            Ok(true) => tracing::warn!("the lock's file was removed or replaced: taken anew"),
            // Whose the home is now, his is the store.
            Err(e) => {
                self.home_trouble(e.to_string());
                return;
            }
        }
        self.troubles.remove(TROUBLE);
        if !self.store.is_in_place() {
            self.store.write_anew();
        }
    }

    /// The folders of the home, where they are missing.
    pub(super) fn make_home(&self) -> Result<(), folder::FolderError> {
        for path in [&self.home.state, &self.home.run, &self.home.logs()] {
            if !path.is_dir() {
                folder::private_folder(path)?;
                tracing::warn!(path = %path.display(), "a folder of the home was removed: made again");
            }
        }
        Ok(())
    }

    fn home_trouble(&mut self, why: String) {
        if self.troubles.get(TROUBLE) != Some(&why) {
            tracing::error!("the home: {why}");
            self.troubles.insert(TROUBLE, why);
        }
    }
}
