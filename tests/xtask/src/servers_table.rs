//! `cargo xtask servers-table`: the real servers and whether they are linked back, in docs/healing.md, from their records.

use scenarios::fault::Context;
use scenarios::servers_table::{page, renewed};
use scenarios::{Fault, Record, Result};
use std::fs;
use std::process::ExitCode;

/// Writes the table anew.
pub fn servers_table(arguments: &[String]) -> Result<ExitCode> {
    if let Some(argument) = arguments.first() {
        return Err(Fault(format!("servers-table takes no argument, and was given {argument:?}")));
    }
    let page = page();
    let text = fs::read_to_string(&page).context(page.display())?;
    fs::write(&page, renewed(&text, &Record::all()?)?).context(page.display())?;
    eprintln!("xtask: written: {}", page.display());
    Ok(ExitCode::SUCCESS)
}
