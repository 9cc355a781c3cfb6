//! `shimd check [--json] PATH...`: a verdict for any paths, without a daemon.
//!
//! Exit status: 0 if all are `ok`; 2 if the truth about any could not be had (`unknown`), or the question could
//! not be put; else 1.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use shimd_api::wire::SocketRow;
use socket_audit::{Auditor, Expect, Finding, Verdict};

const NOT_OK: u8 = 1;
const CANNOT_TELL: u8 = 2;

/// What to check, and how to say it.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    /// Print a JSON array, with the fields of `socket.check`, in place of a table
    #[arg(long)]
    json: bool,
    /// Socket paths; `@name` for an abstract socket
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Checks the paths, prints what was found, and says by the exit status whether all are in order.
pub fn run(args: &CheckArgs) -> ExitCode {
    let expects: Vec<_> = args.paths.iter().map(|path| Expect::path(absolute(path))).collect();
    let findings = match Auditor::new() {
        Ok(mut auditor) => auditor.audit(&expects),
        Err(error) => {
            eprintln!("shimd check: {error}");
            return ExitCode::from(CANNOT_TELL);
        }
    };
    let text = if args.json { json(&args.paths, &findings) } else { Ok(table(&findings)) };
    let written = text.and_then(|text| io::stdout().write_all(text.as_bytes()));
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("shimd check: cannot write the answer: {error}");
            ExitCode::from(CANNOT_TELL)
        }
        Ok(()) | Err(_) => ExitCode::from(status(findings.iter().map(|finding| finding.verdict))),
    }
}

/// An abstract name stays as it is. So does a path without a working folder to start from.
fn absolute(path: &Path) -> PathBuf {
    if path.as_os_str().as_encoded_bytes().starts_with(b"@") {
        return path.to_owned();
    }
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn status(verdicts: impl Iterator<Item = Verdict>) -> u8 {
    let of_one = |verdict| match verdict {
        Verdict::Ok => 0,
        Verdict::Unknown => CANNOT_TELL,
        Verdict::Dangling
        | Verdict::Replaced
        | Verdict::Foreign
        | Verdict::Stale
        | Verdict::NotSocket
        | Verdict::Absent
        | Verdict::Wedged
        | Verdict::Denied => NOT_OK,
    };
    verdicts.map(of_one).max().unwrap_or(0)
}

fn json(asked: &[PathBuf], findings: &[Finding]) -> io::Result<String> {
    let rows: Vec<_> = asked.iter().zip(findings).map(|(asked, finding)| row(asked, finding)).collect();
    Ok(serde_json::to_string_pretty(&rows)? + "\n")
}

/// The row of a path that no service declares.
pub fn row(asked: &Path, finding: &Finding) -> SocketRow {
    let listener = finding.listener.as_ref();
    SocketRow {
        service: None,
        socket: asked.display().to_string(),
        path: finding.path.display().to_string(),
        verdict: finding.verdict.as_str().to_owned(),
        reason: (!finding.reason.is_empty()).then(|| finding.reason.to_string()),
        pid: finding.holder.as_ref().map(|holder| holder.pid),
        inode: listener.map(|listener| listener.inode),
        pending: listener.map(|listener| listener.pending),
        backlog: listener.map(|listener| listener.backlog),
        since: None,
        culprit: None,
        relinked: 0,
    }
}

/// Columns as wide as their widest cell; the last runs on.
fn table(findings: &[Finding]) -> String {
    let mut rows = vec![["path", "verdict", "pid", "reason"].map(str::to_owned)];
    rows.extend(findings.iter().map(|finding| {
        let pid = finding.holder.as_ref().map_or_else(|| "-".to_owned(), |holder| holder.pid.to_string());
        [finding.path.display().to_string(), finding.verdict.to_string(), pid, finding.reason.to_string()]
            .map(|cell| printable(&cell))
    }));
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let (path_width, verdict_width, pid_width) = (width(0), width(1), width(2));
    let mut text = String::new();
    for [path, verdict, pid, reason] in &rows {
        let start = text.len();
        // Writing to a String does not fail.
        let _ = write!(text, "{path:path_width$}  {verdict:verdict_width$}  {pid:>pid_width$}  {reason}");
        text.truncate(text.trim_end().len().max(start));
        text.push('\n');
    }
    text
}

/// A file name may hold what a terminal obeys.
fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_debug().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    fn finding(path: &str, verdict: Verdict, reason: &'static str) -> Finding {
        Finding {
            path: path.into(),
            verdict,
            reason: Cow::Borrowed(reason),
            cause: None,
            listener: None,
            holder: None,
            others: Vec::new(),
            dentry: None,
            bound_not_listening: false,
        }
    }

    #[test]
    fn the_worst_verdict_is_the_exit_status() {
        let status = |verdicts: &[Verdict]| super::status(verdicts.iter().copied());
        assert_eq!(status(&[Verdict::Ok, Verdict::Ok]), 0);
        assert_eq!(status(&[Verdict::Ok, Verdict::Stale]), 1);
        assert_eq!(status(&[Verdict::Unknown, Verdict::Stale]), 2);
    }

    #[test]
    fn the_table_is_aligned_and_cannot_steer_the_terminal() {
        let found =
            [finding("/run/a.sock", Verdict::Ok, ""), finding("/b\u{1b}[2J", Verdict::NotSocket, "a folder")];
        let expected = "path         verdict     pid  reason\n\
                        /run/a.sock  ok            -\n\
                        /b\\u{1b}[2J  not-socket    -  a folder\n";
        assert_eq!(table(&found), expected);
    }

    #[test]
    fn json_rows_have_every_field_and_null_for_what_is_not_known() {
        let found = [finding("/run/a.sock", Verdict::Ok, "")];
        let rows: Vec<SocketRow> = serde_json::from_str(&json(&["a.sock".into()], &found).unwrap()).unwrap();
        assert_eq!((rows[0].socket.as_str(), rows[0].path.as_str()), ("a.sock", "/run/a.sock"));
        assert_eq!((rows[0].verdict.as_str(), &rows[0].reason), ("ok", &None));
    }

    #[test]
    fn only_a_plain_path_is_made_absolute() {
        assert_eq!(absolute(Path::new("@name")), Path::new("@name"));
        assert!(absolute(Path::new("x.sock")).is_absolute());
    }
}
