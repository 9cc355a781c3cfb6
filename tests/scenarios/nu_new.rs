//! `service new` of `nu/lib.nu` writes a module that works as it is written, whatever words its `exec` has; it takes no name
//! that could not be called, and nobody's file.

use crate::nu_modules::project;
use libtest_mimic::Trial;
use nix::sys::socket::SockType;
use scenarios::client::ask;
use scenarios::{Json, Need, Record, Result, World, ensure, scenario};
use serde_json::json;
use std::fs;
use std::path::Path;

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    // The record tells whether the server is installed.
    let ncat = Record::named("ncat").ok().map(|record| Need::Server(Box::new(record)));
    let with_server: Vec<Need> = needs.iter().cloned().chain(ncat).collect();
    vec![
        scenario("nu_new::works_as_written", &with_server, works),
        scenario("nu_new::every_word_arrives", &needs, words),
        scenario("nu_new::refused", &needs, refused),
    ]
}

fn new(arguments: &str) -> String {
    format!("use {} *; service new {arguments}", project("lib.nu"))
}

fn works(world: &World) -> Result {
    let path = world.nu_json(&new("parrot --dir modules"))?;
    let path = path.as_str().unwrap_or_default().to_owned();
    // A server is filled in, as by hand.
    let text = fs::read_to_string(&path)?;
    let filled = text.replace(
        "(service program parrot) \"{socket:parrot.sock}\"",
        "(service program ncat) -lkU '{socket:parrot.sock}' -e /bin/cat",
    );
    ensure!(text != filled, "the template has another `exec`:\n{text}");
    fs::write(&path, filled)?;
    // Another one has its server from the start.
    world.nu_json(&new("magpie --dir modules --exec [ncat -lkU '{socket:rpc.sock}' -e /bin/cat]"))?;
    for name in ["parrot", "magpie"] {
        let using = format!("use {};", world.file(&format!("modules/{name}.nu")).display());
        let started = world.nu_json(&format!("{using} {name} up"))?;
        ensure!(started.only()?.text("status")? == "running", "{started}");
        let checked = world.nu_json(&format!("{using} {name} check --fail"))?;
        let row = checked.only()?;
        ensure!(row.text("verdict")? == "ok", "{checked}");
        let answer = ask(Path::new(row.text("path")?), SockType::Stream, "hello")?;
        ensure!(answer == "hello", "{name} answers {answer:?}");
        let restarted = world.nu_json(&format!("{using} {name} restart --clean"))?;
        ensure!(restarted.only()?.text("outcome")? == "restarted", "{restarted}");
        let status = world.nu_json(&format!("{using} {name} status"))?;
        ensure!(status.text("status")? == "running", "{status}");
        let log = world.home().join("logs").join(format!("{name}.err"));
        fs::write(log, "one\ntwo\n")?;
        let logged = world.nu_json(&format!("{using} {name} logs --lines 1 | get line"))?;
        ensure!(logged == json!(["two"]), "{logged}");
        let stopped = world.nu_json(&format!("{using} {name} down"))?;
        ensure!(stopped.only()?.text("status")? == "inactive", "{stopped}");
    }
    Ok(())
}

fn words(world: &World) -> Result {
    let words = json!([
        "/bin/echo",
        "$HOME",
        "a b",
        "(x)",
        "don't",
        "~/x",
        "80",
        "true",
        "-inf",
        "",
        "\"",
        "{a}",
        "#x",
        "x#y",
        "|",
        ";",
        "a,b",
        "`t`",
        "\\n",
        "\n",
        "5sec",
        "[x]",
        "\u{e9}",
        "--",
        "0x10",
        "a..b",
        "null",
        "a:b",
        "$",
        "'",
        "=",
        "10kb",
        "2026-01-01",
        "&&",
        "...$x",
        "!",
        "^ls",
        "x=1",
        "a$b",
        "@x",
        "x'y\"z",
        "-p",
        "--long-flag=1",
        "{socket:a.sock}",
        "--b={socket:b.sock}",
        "{socket:a.sock}",
    ]);
    let file = world.write("words.json", &words.to_string())?;
    world.nu_json(&new(&format!("odd --dir 'a folder' --exec (open {})", file.display())))?;
    let spec = world.nu_json(&format!("use '{}'; odd spec", world.file("a folder/odd.nu").display()))?;
    ensure!(spec.field("exec") == &words, "{spec}");
    ensure!(spec.field("sockets") == &json!(["a.sock", "b.sock"]), "{spec}");
    Ok(())
}

fn refused(world: &World) -> Result {
    for name in [
        "9p",
        "''",
        "'a b'",
        "../up",
        "a.b",
        "service",
        "if",
        "ls",
        "proc",
        "\u{fc}ber",
        "('x' | fill -w 65 -c x)",
    ] {
        let failure = world.nu_refuses(&new(name), "service::bad_input")?;
        ensure!(!failure.labels.is_empty(), "`{name}`: no label: {failure}");
    }
    world.write("mine.nu", "# mine")?;
    world.nu_refuses(&new("mine"), "service::exists")?;
    ensure!(fs::read_to_string(world.file("mine.nu"))? == "# mine", "it is as it was");
    ensure!(fs::read_dir(world.file("."))?.count() == 1, "nothing else was written");
    Ok(())
}
