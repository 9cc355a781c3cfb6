//! The words of the machine: phases, what it keeps, what happens to it, and what it asks for. What follows from
//! what are the tables in [`machine`](super::machine) and [`beside`](super::beside).

/// What was last asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Want {
    /// The service is to run.
    Up,
    /// It is not.
    Down,
}

/// What follows once the tree of the instance is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Next {
    /// Nothing: it was told to stop, or has ended as its policy allows.
    Down,
    /// Another start at once.
    Again,
    /// Another start after the policy's delay, if the limit has room.
    Retry,
    /// Nothing, and that is a failure.
    Fail,
}

/// Where a service stands; see the table above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the header's table says what each is
pub enum Phase {
    Loaded,
    Inactive,
    Waiting { blocked: bool },
    Preparing { force: bool },
    Spawning,
    Verifying,
    Publishing { late: bool },
    Running,
    Impaired,
    Stopping(Next),
    Killing(Next),
    Backoff,
    Failed,
}

/// Where the second instance stands, while there is one or is to be one; see the table of
/// [`beside`](super::beside).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the header's table says what each is
pub enum Beside {
    Preparing,
    Spawning,
    Verifying,
    Publishing,
    Draining,
    Stopping,
    Killing,
}

/// A restart under way: an open intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Restart {
    /// End whoever else listens, and try the whole a second time.
    pub clean: bool,
    /// 1 or 2.
    pub attempt: u8,
    /// The instance that lives is the old one, and is to go. With `gapless`: the second instance that lives is
    /// not the one that is wanted, and is to go.
    pub leaving: bool,
    /// The new instance is brought up beside the old one.
    pub gapless: bool,
}

/// How a service without an instance came to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rest {
    /// It ended by itself, and its policy lets it.
    Ended,
    /// It failed.
    Failed,
}

/// What the store holds of a service beside its spec and its instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Durable {
    /// What was last asked for.
    pub want: Want,
    /// The restart under way.
    pub restart: Option<Restart>,
    /// How it came to rest, where it did.
    pub rest: Option<Rest>,
}

impl Durable {
    /// Whether all that has changed until `now` is that the instance which a restart is to end is gone.
    pub fn has_only_left(self, now: Durable) -> bool {
        let left = self.restart.filter(|restart| !restart.gapless);
        let left = left.map(|restart| Restart { leaving: false, ..restart });
        left.is_some() && Durable { restart: left, ..self } == now
    }
}

/// What recovery found of an instance that the store names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Found {
    /// Its main process lives.
    Alive,
    /// Its main process is gone, others of its tree live.
    Remains,
    /// Nothing of it lives.
    Gone,
    /// The store names none (or one of another boot).
    None,
}

/// How the dependencies stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deps {
    /// All run.
    Ready,
    /// Some are on their way.
    Pending,
    /// One has failed.
    Blocked,
}

/// What can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// `ready.timeout`, from the spawn.
    Start,
    /// `stop.timeout`, from the stop signal.
    Stop,
    /// From SIGKILL to the next look.
    Kill,
    /// The restart policy's delay.
    Backoff,
    /// `restart.window`, from its first start.
    Window,
    /// Of the second instance: `ready.timeout` while it is verified, `stop.timeout` from the drain and again from
    /// the stop signal, then from SIGKILL to the next look.
    Beside,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Command: run.
    Start,
    /// Command: do not run.
    Stop,
    /// Command: stop, then run.
    Restart {
        /// `--clean`
        clean: bool,
        /// `--gapless`
        gapless: bool,
    },
    /// A socket has lost its dentry, and `on_missing` asks for a restart.
    Lost,
    /// Command: forget failures.
    ResetFailed,
    /// The dependencies' state, told while Waiting.
    Deps(Deps),
    /// The Clean in flight is done.
    Cleaned,
    /// The Clean in flight could not make way.
    CleanFailed {
        /// Trying again later may do.
        transient: bool,
    },
    /// The Spawn in flight has an instance, recorded.
    Spawned,
    /// The Spawn in flight has none.
    SpawnFailed {
        /// The cause may pass by itself (no memory, no process slot).
        transient: bool,
    },
    /// Whether clients can reach every socket (of one to be published: at its private path), and the service
    /// said it is ready where it was asked to.
    Serving(bool),
    /// The Publish in flight is done.
    Published,
    /// The Publish in flight could not be done.
    PublishFailed,
    /// The main process ended.
    Exited {
        /// With status 0.
        success: bool,
    },
    /// No process of the instance is left.
    TreeGone,
    /// A timer that was armed ran out.
    Timer(Timer),
    /// Of the second instance.
    Beside(Sign),
    /// What is left after the daemon's own start.
    Recovered {
        /// Of the instance that was the service's.
        current: Found,
        /// Of the second one.
        other: Found,
    },
}

/// What happened to the second instance. That a Clean or a Spawn for it has ended is told by the [`Event`]s of
/// these: only one of them is ever in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sign {
    /// It serves at its private paths, and said it is ready where it was asked to.
    Serving,
    /// Its Publish in flight is done.
    Published,
    /// Its Publish in flight could not be done.
    PublishFailed,
    /// Its main process ended.
    Exited,
    /// No client waits for it, or is connected to it.
    Drained,
    /// No process of it is left.
    Gone,
}

/// What the supervisor is to do, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Tell how the dependencies stand now, and whenever that changes while Waiting.
    CheckDeps,
    /// Remove stale dentries and the marker, end `kill_other`'s holders; with `force` whoever else
    /// listens on a declared socket. Answers Cleaned or CleanFailed.
    Clean {
        /// `--clean`
        force: bool,
    },
    /// Spawn an instance and record it. Answers Spawned or SpawnFailed.
    Spawn,
    /// Take over the recorded instance.
    Adopt,
    /// Audit the sockets now and until they are ok. Answers Serving.
    Verify,
    /// Put the instance's `publish` sockets at their public names, where they do not lie there yet. Answers
    /// Published (at once where there are none) or PublishFailed.
    Publish,
    /// The second instance is the service's now, and the service's (or what is left of it) the second. Always the
    /// first action of a step: it goes into the store with the step's intent.
    Swap,
    /// For the second instance.
    Beside(Deed),
    /// Send the stop signal: to the main process, or to all that is left where it is gone. Answers
    /// TreeGone when nothing lives.
    Signal,
    /// SIGKILL to the whole tree. Answers TreeGone when nothing lives.
    Kill,
    /// Start a timer anew.
    Arm(Timer),
    /// Stop a timer: its event does not come.
    Disarm(Timer),
}

/// What the supervisor is to do about the second instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deed {
    /// Make way without touching a dentry of the instance that serves: the marker and private leftovers alone.
    /// Answers [`Event::Cleaned`] or [`Event::CleanFailed`].
    Clean,
    /// Spawn it and record it. Answers [`Event::Spawned`] or [`Event::SpawnFailed`].
    Spawn,
    /// Take over the recorded one.
    Adopt,
    /// Audit its private paths now and until they are ok. Answers [`Sign::Serving`].
    Verify,
    /// Put its sockets at their public names. Answers [`Sign::Published`] or [`Sign::PublishFailed`].
    Publish,
    /// Wait until no client waits for it or is connected to it. Answers [`Sign::Drained`].
    Drain,
    /// As [`Action::Signal`]. Answers [`Sign::Gone`].
    Signal,
    /// As [`Action::Kill`]. Answers [`Sign::Gone`].
    Kill,
}
