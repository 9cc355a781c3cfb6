//! The table of the records in docs/healing.md: which server's lost socket is linked back, and why another's is not.

use crate::fault::Context;
use crate::{Record, Result};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What the records write lies between these lines.
const MARKERS: (&str, &str) = ("<!-- servers -->", "<!-- /servers -->");

/// The page that holds the table.
pub fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/healing.md")
}

/// The page's text with the table as the records have it.
///
/// # Errors
/// Where the text has no lines with the markers.
pub fn renewed(text: &str, records: &[Record]) -> Result<String> {
    let missing = || format!("{} has no lines {} and {}", page().display(), MARKERS.0, MARKERS.1);
    let (before, rest) = text.split_once(MARKERS.0).context(missing())?;
    let (_, after) = rest.split_once(MARKERS.1).context(missing())?;
    Ok(format!("{before}{}\n{}{}{after}", MARKERS.0, table(records), MARKERS.1))
}

/// The exceptions come first.
fn table(records: &[Record]) -> String {
    let mut table = String::from("| server | linked back | about |\n| --- | --- | --- |\n");
    let (exceptions, others): (Vec<_>, Vec<_>) = records.iter().partition(|record| record.is_an_exception());
    for record in exceptions.into_iter().chain(others) {
        let answer = match (&record.not_relinked, &record.not_adopted) {
            (Some(why), _) => format!("no: {why}"),
            (None, Some(why)) => format!("yes, while `shimd` runs: {why}"),
            (None, None) => "yes".to_owned(),
        };
        let cell = |text: &str| text.replace('|', "\\|");
        // Writing to a string does not fail.
        let _ = writeln!(table, "| {} | {} | {} |", record.name, cell(&answer), cell(&record.about));
    }
    table
}
