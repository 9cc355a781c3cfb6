//! `shimd check`: any socket paths, without a daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use shimd_api::wire::SocketRow;
use socket_audit::{Auditor, Expect, Finding, Verdict};

/// What to check.
#[derive(Args)]
pub struct CheckArgs {
    /// Print a JSON array, one object a path
    #[arg(long)]
    json: bool,
    /// The sockets; @name is an abstract one
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

const CANNOT_TELL: u8 = 2;

/// Audits the paths. Exit 0: all are ok, 1: some are not, 2: the truth could not be had.
pub fn run(args: &CheckArgs) -> ExitCode {
    let mut auditor = match Auditor::new() {
        Ok(auditor) => auditor,
        Err(e) => {
            eprintln!("shimd check: {e}");
            return ExitCode::from(CANNOT_TELL);
        }
    };
    let expects: Vec<Expect> = args.paths.iter().map(|p| Expect::path(absolute(p))).collect();
    let findings = auditor.audit(&expects);
    let rows: Vec<SocketRow> = findings.iter().map(row).collect();
    let text = if args.json { serde_json::to_string_pretty(&rows).unwrap_or_default() } else { table(&rows) };
    // A reader that has gone (`| head`) wants no more; that is no failure.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("{text}\n").as_bytes());
    let any = |verdict: &dyn Fn(Verdict) -> bool| findings.iter().any(|f| verdict(f.verdict));
    if any(&|v| v == Verdict::Unknown) {
        ExitCode::from(CANNOT_TELL)
    } else if any(&|v| v != Verdict::Ok) {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    }
}

/// A relative path is the caller's; an abstract name stays as it is.
fn absolute(path: &std::path::Path) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    if path.as_os_str().as_bytes().starts_with(b"@") {
        return path.to_owned();
    }
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The row of a path that no service declares.
pub fn row(finding: &Finding) -> SocketRow {
    let path = finding.path.display().to_string();
    SocketRow {
        service: None,
        socket: finding.path.file_name().map_or_else(|| path.clone(), |n| n.to_string_lossy().into_owned()),
        path,
        verdict: finding.verdict.as_str().to_owned(),
        reason: (!finding.reason.is_empty()).then(|| finding.reason.to_string()),
        pid: finding.holder.as_ref().map(|h| h.pid),
        inode: finding.listener.as_ref().map(|l| l.inode),
        pending: finding.listener.as_ref().map(|l| l.pending),
        backlog: finding.listener.as_ref().map(|l| l.backlog),
        since: None,
        culprit: None,
        relinked: 0,
    }
}

fn table(rows: &[SocketRow]) -> String {
    let width = |f: fn(&SocketRow) -> usize| rows.iter().map(f).max().unwrap_or_default();
    let (path, verdict) = (width(|r| r.path.chars().count()), width(|r| r.verdict.len()));
    let line = |r: &SocketRow| {
        let pid = r.pid.map_or_else(|| "-".to_owned(), |p| p.to_string());
        let line = format!(
            "{:path$}  {:verdict$}  {pid:>7}  {}",
            r.path,
            r.verdict,
            r.reason.as_deref().unwrap_or_default()
        );
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
