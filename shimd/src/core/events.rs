//! The words of the machine: phases, what it keeps, what happens to it, and what it asks for. What follows from
//! what is the table in [`machine`](super::machine).

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
    Running,
    Impaired,
    Stopping(Next),
    Killing(Next),
    Backoff,
    Failed,
}

/// A restart under way: an open intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Restart {
    /// End whoever else listens, and try the whole a second time.
    pub clean: bool,
    /// 1 or 2.
    pub attempt: u8,
    /// The instance that lives is the old one, and is to go.
    pub leaving: bool,
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

/// What recovery found of the instance that the store names.
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
    },
    /// Command: forget failures.
    ResetFailed,
    /// The dependencies' state, told while Waiting.
    Deps(Deps),
    /// The Clean in flight is done.
    Cleaned,
    /// The Clean in flight could not make way.
    CleanFailed,
    /// The Spawn in flight has an instance, recorded.
    Spawned,
    /// The Spawn in flight has none.
    SpawnFailed {
        /// The cause may pass by itself (no memory, no process slot).
        transient: bool,
    },
    /// Whether clients can reach every socket, and the service said it is ready where it was asked to.
    Serving(bool),
    /// The main process ended.
    Exited {
        /// With status 0.
        success: bool,
    },
    /// No process of the instance is left.
    TreeGone,
    /// A timer that was armed ran out.
    Timer(Timer),
    /// What is left of the last instance, after the daemon's own start.
    Recovered(Found),
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
