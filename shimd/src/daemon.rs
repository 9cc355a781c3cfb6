//! `shimd run`: the parts put together, and taken apart again.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use serde_json::value::RawValue;
use shimd_api::paths::{self, Home};
use shimd_api::rpc::RpcError;
use shimd_api::wire::Progress;
use socket_audit::{Auditor, Expect, Owner};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::replace::{self, ReplaceError};
use crate::server::{self, Handler, Limits, News, Server};
use crate::store::Store;
use crate::supervisor::{Handle, Parts, Supervisor};
use crate::sys::{activation, clean, detach, folder, limits, lock, schedule};

/// How `shimd run` ends when another daemon has the home.
const ALREADY: u8 = 3;
/// How long a killed daemon may still seem to listen: its lock may be free before its last descriptor is closed.
const DYING: Duration = Duration::from_secs(1);

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Home(#[from] paths::PathsError),
    #[error(transparent)]
    Folder(#[from] folder::FolderError),
    #[error(transparent)]
    Lock(#[from] lock::LockError),
    #[error(
        "{}: pid {pid} listens here, though the lock beside it was free: another shimd whose lock file was removed takes it anew within seconds; use that one, stop it, or set SHIMD_HOME to another folder", path.display()
    )]
    Served { path: PathBuf, pid: i32 },
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error("a dead daemon's control socket is in the way: {0}")]
    Leftover(#[from] clean::CleanError),
    #[error(transparent)]
    Server(#[from] server::ServerError),
    #[error(transparent)]
    Supervisor(#[from] crate::supervisor::BuildError),
    #[error("cannot start the runtime: {0}; raise the limits of processes and open files")]
    Runtime(std::io::Error),
}

/// Runs the daemon until it is told to end. `detached`: in a session of its own, with no descriptor of its
/// parent's but the standard three. `replacing`: in the place of the one that runs, if one does.
pub fn run(detached: bool, replacing: bool) -> ExitCode {
    if detached && let Err(e) = detach::detach() {
        eprintln!("shimd: cannot detach: {e}");
        return ExitCode::FAILURE;
    }
    logging();
    limits::raise_nofile();
    match start(replacing) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("shimd: {e}");
            match e {
                StartError::Served { .. }
                | StartError::Lock(lock::LockError::Held { .. })
                | StartError::Replace(ReplaceError::Turn(lock::LockError::Held { .. })) => {
                    ExitCode::from(ALREADY)
                }
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SHIMD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal).init();
}

fn start(replacing: bool) -> Result<(), StartError> {
    let env = |name: &str| std::env::var_os(name);
    // Before anything is opened, and any thread started.
    let mut inherited = activation::inherited(&env);
    let home = Home::from_env(&env, nix::unistd::geteuid().as_raw())?;
    let root = paths::socket_root(&env)?;
    folder::private_folder(&home.state)?;
    folder::private_folder(&home.run)?;
    folder::private_folder(&home.logs())?;
    schedule::soon();
    let runtime = runtime(Builder::new_multi_thread().worker_threads(1))?;
    // One daemon a home: the lock says so, not a path that exists.
    let (lock, place) = if replacing {
        let _within = runtime.enter();
        replace::take(&home, &root)?
    } else {
        (replace::take_lock(&home)?, None)
    };
    let lock = Arc::new(lock);
    let control = home.control_socket();
    if place.is_none()
        && let Some(pid) = served_by(&control)
    {
        return Err(StartError::Served { path: control, pid });
    }
    let (store, loaded) = Store::open(&home.database())?;
    let last = store.clone();
    let ended = runtime.block_on(async {
        let server = match place {
            Some(place) => {
                // What has no name is known by what it is bound to.
                inherited.extend(place.kept.into_iter().map(|fd| (String::new(), fd)));
                place.beside.into_server()?
            }
            None => {
                // The lock is ours, and nobody listens: what lies there belongs to a dead daemon.
                clean::remove_socket(&control, &|_| true)?;
                Server::bind(&control)?
            }
        };
        let most = Limits::default();
        let server = server.with_limits(Limits { clients: limits::clients(most.clients), ..most });
        let control = server.control();
        let clients = tokio::runtime::Handle::current();
        let Supervising { handle, ended, _stays } = supervise(Parts {
            home: home.clone(),
            lock: lock.clone(),
            root,
            store,
            loaded,
            control,
            inherited,
            clients,
        })?;
        tracing::info!("shimd {} listens on {}", env!("CARGO_PKG_VERSION"), home.control_socket().display());
        // The supervisor ends when it was told to; the server then lets the answers on their way be written.
        let ended = async {
            if ended.await.is_err() {
                tracing::error!("the supervisor ended by itself; services live on, start shimd again");
            }
        };
        server.serve(Arc::new(Api(handle)), ended).await;
        Ok(())
    });
    // Nobody waited for the last events; a disk that hangs must not hold up the end.
    runtime.block_on(last.ended());
    ended
}

/// The supervisor, at work on its thread.
struct Supervising {
    handle: Handle,
    /// It has ended; an error where that was by itself.
    ended: oneshot::Receiver<()>,
    /// What it has begun goes on until this is dropped.
    _stays: oneshot::Sender<()>,
}

/// Starts the supervisor on a thread of its own, which does nothing else, in a runtime of its own: what it waits for wakes
/// that thread and no other. Of several threads, each step between the end of one instance and the exec of the next would
/// first be handed to another, and may find that one's processor asleep.
fn supervise(parts: Parts) -> Result<Supervising, StartError> {
    let runtime = runtime(&mut Builder::new_current_thread())?;
    let (built, answer) = std::sync::mpsc::channel();
    let (done, ended) = oneshot::channel();
    let (_stays, server_ended) = oneshot::channel::<()>();
    let work = move || {
        schedule::soon();
        runtime.block_on(async {
            match Supervisor::build(parts) {
                Err(e) => drop(built.send(Err(e))),
                Ok((supervisor, handle)) => {
                    tokio::spawn(end_at_signal(handle.clone()));
                    drop(built.send(Ok(handle)));
                    supervisor.run().await;
                    let _ = done.send(());
                    // Answers on their way are still made here.
                    let _ = server_ended.await;
                }
            }
        });
    };
    let thread = std::thread::Builder::new().name("supervisor".into()).stack_size(1024 * 1024);
    thread.spawn(work).map_err(StartError::Runtime)?;
    match answer.recv() {
        Ok(built) => Ok(Supervising { handle: built?, ended, _stays }),
        Err(_) => Err(StartError::Runtime(std::io::Error::other("its thread has ended"))),
    }
}

/// With threads that are small and get the processor soon.
fn runtime(kind: &mut Builder) -> Result<Runtime, StartError> {
    kind.max_blocking_threads(8)
        .thread_stack_size(512 * 1024)
        .on_thread_start(schedule::soon)
        .enable_all()
        .build()
        .map_err(StartError::Runtime)
}

/// Who listens at the control socket's path, or has bound it and lost its file, if anybody has. The home's lock proves that no
/// daemon runs here only for as long as its file is not removed, and who removes that may have removed the socket's too.
fn served_by(control: &Path) -> Option<i32> {
    // Where the kernel cannot be asked, the lock must do.
    let mut auditor = Auditor::new().ok()?;
    let until = Instant::now() + DYING;
    loop {
        let expect = Expect { owner: Owner::Pids(Vec::new()), ..Expect::path(control) };
        let finding = auditor.confirm(&expect);
        let listen = finding.others.iter().filter(|_| !finding.bound_not_listening);
        let ours = std::process::id().cast_signed();
        let pid = listen.flat_map(|party| &party.pids).copied().find(|pid| *pid != ours)?;
        if Instant::now() > until {
            return Some(pid);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// SIGTERM and SIGINT end the daemon; its services live on.
async fn end_at_signal(handle: Handle) {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("cannot listen for signals");
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("told to end by a signal; services live on");
    let _ = handle.ask("shim.shutdown", RawValue::NULL, None).await;
}

/// What the control socket's server calls.
struct Api(Handle);

impl Handler for Api {
    async fn call(
        &self,
        method: &str,
        params: &RawValue,
        progress: Option<mpsc::Sender<Progress>>,
    ) -> Result<Box<RawValue>, RpcError> {
        self.0.ask(method, params, progress).await
    }

    async fn follow(
        &self,
        method: &str,
        params: &RawValue,
    ) -> Result<(Box<RawValue>, mpsc::Receiver<News>), RpcError> {
        self.0.follow(method, params).await
    }

    async fn metrics(&self) -> String {
        crate::metrics::encode(&self.0).await
    }

    async fn health(&self) -> Value {
        match self.0.ask("shim.info", RawValue::NULL, None).await {
            Ok(info) => serde_json::json!({ "status": "ok", "shim": info }),
            Err(e) => serde_json::json!({ "status": "ending", "reason": e.message }),
        }
    }
}
