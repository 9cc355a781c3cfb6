//! What services write, kept without standing between: each writes straight to its own two files, which
//! the daemon opens for append and hands over at the spawn. Its death or slowness touches no service.
//!
//! | file | holds |
//! | --- | --- |
//! | `<service>.out`, `.err` | the live end of the stream |
//! | `<service>.out.1` … `.<keep>` | what was cut from its front, newest first; whole blocks, so a line may go on in the next file |
//! | `<service>.out.cut`, `.new` | a cut under way (see `trim`) |
//! | `<service>.out.idx` | when the stream was how long (see `index`) |
//!
//! `cat x.out.2 x.out.1 x.out` is the stream, byte for byte.

mod append;
mod dates;
mod follow;
mod index;
mod indexer;
mod keeper;
mod lines;
mod reader;
mod tail;
mod trim;
mod view;
mod writes;

use std::io;
use std::path::{Path, PathBuf};

pub use append::open_for_append;
pub use indexer::Indexer;
pub use keeper::Logs;
pub use reader::Wanted;
pub use tail::tail;
pub use trim::Trimming;

/// How much of each of a service's two streams is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that the live file may hold; a little more between two looks at it.
    pub max_size: u64,
    /// How many files of at most `max_size` what is cut from it fills, before the oldest goes.
    pub keep: u32,
}

/// Why a log cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No service has such a name.
    #[error("{service:?} is no service name: it would lead out of the folder of logs")]
    Name {
        /// The name.
        service: String,
    },
    /// Something else than a file lies there.
    #[error("{}: is not a regular file; move it away", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The system refused a step.
    #[error("{}: cannot {step}: {source}; see that the folder exists, is the daemon's own, and that the disk has space", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The step, in words.
        step: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

impl LogError {
    fn io(path: &Path, step: &'static str) -> impl FnOnce(io::Error) -> LogError {
        move |source| LogError::Io { path: path.into(), step, source }
    }
}

/// The two streams of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Stream {
    Out,
    Err,
}

impl Stream {
    const BOTH: [Stream; 2] = [Stream::Out, Stream::Err];

    fn as_str(self) -> &'static str {
        match self {
            Stream::Out => "out",
            Stream::Err => "err",
        }
    }
}

/// The files of one stream.
#[derive(Debug, Clone)]
struct Files {
    live: PathBuf,
}

impl Files {
    fn new(logs_dir: &Path, service: &str, stream: Stream) -> Result<Files, LogError> {
        if service.is_empty() || service.starts_with('.') || service.contains(['/', '\0']) {
            return Err(LogError::Name { service: service.into() });
        }
        Ok(Files { live: logs_dir.join(format!("{service}.{}", stream.as_str())) })
    }

    fn with(&self, suffix: &str) -> PathBuf {
        let mut name = self.live.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    fn rotated(&self, n: u32) -> PathBuf {
        self.with(&format!(".{n}"))
    }

    fn cut(&self) -> PathBuf {
        self.with(".cut")
    }

    fn new_cut(&self) -> PathBuf {
        self.with(".new")
    }

    fn index(&self) -> PathBuf {
        self.with(".idx")
    }
}

/// Runs a step that may find nothing there.
fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
