//! The scripting patterns of `docs/modules.md` do what the page says, word for word, in its order.

use crate::nu_modules::project;
use libtest_mimic::Trial;
use scenarios::fault::Context;
use scenarios::{Need, Result, World, ensure, scenario};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

pub fn trials() -> Vec<Trial> {
    vec![scenario("nu_patterns", &[Need::Daemon, Need::Nushell], patterns)]
}

/// The blocks of code below this heading.
fn blocks(heading: &str) -> Result<Vec<String>> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/modules.md"))?;
    let (_, section) = page.split_once(&format!("## {heading}\n")).context(heading)?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let blocks = section.split("```nu\n").skip(1).filter_map(|rest| rest.split_once("```"));
    Ok(blocks.map(|(block, _)| block.trim().to_owned()).collect())
}

fn patterns(world: &World) -> Result {
    let using = format!("use {} *;", project("lib.nu"));
    let script = format!("echo now listening; exec {} $0", world.unixd());
    let web = format!(
        "{{name: web, exec: [sh -c '{script}' '{{socket:rpc.sock}}'], sockets: [rpc.sock], on_missing: report}}"
    );
    world.nu(&format!("proc register {web}"))?.success()?;
    let blocks = blocks("Scripting patterns")?;
    let mut blocks = blocks.iter();
    let mut next = |world: &World| -> Result<(String, Value)> {
        let block = blocks.next().context("a pattern")?;
        Ok((block.clone(), world.nu_json(&format!("{using} do {{ {block} }}"))?))
    };
    let mut gives = |wanted: Value| -> Result {
        let (block, got) = next(world)?;
        ensure!(got == wanted, "{block}\ngives {got}, not {wanted}");
        Ok(())
    };

    gives(json!([{"name": "web", "status": "running"}]))?;
    fs::remove_file(world.socket("web", "rpc.sock"))?;
    world.wait_status("web", "failed", SOON)?;
    let (block, restarted) = next(world)?;
    let row = restarted.get(0).cloned().unwrap_or_default();
    ensure!(row["name"] == "web" && row["outcome"] == "restarted", "{block}\ngives {restarted}");
    let mut gives = |wanted: Value| -> Result {
        let (block, got) = next(world)?;
        ensure!(got == wanted, "{block}\ngives {got}, not {wanted}");
        Ok(())
    };
    gives(json!("no port"))?;
    gives(json!("now listening"))?;
    gives(json!(["restarted"]))?;
    gives(json!(["worker-1", "worker-2", "worker-3"]))?;
    gives(json!("running"))?;
    world.nu(&format!("{using} service remove dud"))?.success()?;
    gives(json!(1))?;
    ensure!(next(world).is_err(), "a pattern is not tried");
    let listed = world.nu_json("proc list | get name")?;
    ensure!(listed == json!(["web", "worker-1", "worker-2", "worker-3"]), "scratch is gone: {listed}");
    Ok(())
}
