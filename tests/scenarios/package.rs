//! The Debian package: what is in it, that it works from where it lies, how a system takes it, and its systemd unit.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::client::{ask_and_wait, ping, pong};
use scenarios::command::run;
use scenarios::fault::Context;
use scenarios::systemd::{self, Systemd};
use scenarios::{Json, Need, Result, World, bins, ensure, processes, scenario, specs, wait_until};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);
const LONG: Duration = Duration::from_secs(120);

/// What the unit is called.
const UNIT: &str = "shimd.service";

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell, Need::Tool("cargo-deb"), Need::Program("dpkg-deb")];
    vec![
        scenario("package::works_and_is_installed", &needs, packed),
        scenario("package::unit_is_verified", &[Need::Program("systemd-analyze")], verified),
        scenario(
            "package::services_outlive_the_unit",
            &[Need::Daemon, Need::Root, Need::Program("systemctl"), Need::Program("unshare")],
            outlive,
        ),
    ]
}

fn project(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}

/// Packs what is built already.
fn pack(world: &World) -> Result<PathBuf> {
    let xtask = bins::built("xtask").context("xtask is not built")?;
    let built = xtask.parent().context("no folder")?.to_owned();
    let deb = world.file("shimd.deb");
    // With the caller's environment: cargo has its own places.
    let mut command = std::process::Command::new(xtask);
    command.args(["deb", "--from"]).arg(built).arg("--output").arg(&deb);
    world.note(run(command, LONG)?.success()?);
    Ok(deb)
}

fn packed(world: &World) -> Result {
    let deb = pack(world)?;
    let mut unpack = world.command("dpkg-deb");
    let root = world.file("root");
    unpack.arg("-x").arg(&deb).arg(&root);
    run(unpack, LONG)?.success()?;
    works(world, &root)?;
    let mut script = world.command("dpkg-deb");
    script.args(["--info"]).arg(&deb).arg("postinst");
    let script = run(script, LONG)?.success()?.stdout;
    ensure!(
        script.contains("deb-systemd-invoke try-restart shimd.service"),
        "only a unit that runs: {script}"
    );
    ensure!(!script.contains("deb-systemd-invoke start"), "nothing is started: {script}");
    match Need::Root.lacking() {
        None => installed(world, &deb),
        Some(reason) => {
            println!("package: not installed anywhere: {reason}");
            Ok(())
        }
    }
}

/// From where it lies.
fn works(world: &World, root: &Path) -> Result {
    for file in [
        "usr/share/man/man8/shimd.8.gz",
        "usr/share/man/man8/shimd-run.8.gz",
        "usr/share/man/man8/shimd-check.8.gz",
        "usr/share/man/man8/shimd-wrap.8.gz",
        "usr/share/man/man1/nu_plugin_proc.1.gz",
        "usr/share/shimd/nu/services/redis.nu",
        "usr/share/doc/shimd/README.md",
        "usr/share/doc/shimd/docs/spec.md",
        "usr/share/doc/shimd/copyright",
        "usr/lib/systemd/system/shimd.service",
    ] {
        ensure!(root.join(file).is_file(), "{file} is missing");
    }
    for program in ["usr/bin/shimd", "usr/bin/nu_plugin_proc"] {
        let mode = fs::metadata(root.join(program))?.permissions().mode();
        ensure!(mode & 0o7777 == 0o755, "{program} has mode {mode:o}");
    }
    // The plugin of the package starts the daemon of the package, and its lib.nu works with both.
    let nu = bins::nu().context("no Nushell")?;
    let mut story = world.command(nu);
    let plugin = format!("[{}]", root.join("usr/bin/nu_plugin_proc").display());
    let lib = root.join("usr/share/shimd/nu/lib.nu");
    let script = format!(
        "use {} *; service up {{name: nap, exec: [tail -f /dev/null]}} | get 0.status | print; service down nap",
        lib.display()
    );
    story.args(["-n", "--no-std-lib", "--plugins", &plugin, "-c", &script]);
    let told = run(story, LONG)?.success()?;
    ensure!(told.stdout.starts_with("running"), "{told}");
    let exe = fs::read_link(format!("/proc/{}/exe", world.daemon_pid()?))?;
    ensure!(exe == root.canonicalize()?.join("usr/bin/shimd"), "not the package's: {}", exe.display());
    Ok(())
}

/// In a copy of this system that is thrown away: an overlay, in which dpkg runs as it would.
fn installed(world: &World, deb: &Path) -> Result {
    let script = r#"
        set -e
        mount -t tmpfs none "$ROOT"
        mkdir "$ROOT/up" "$ROOT/work" "$ROOT/system"
        mount -t overlay none -o "lowerdir=/,upperdir=$ROOT/up,workdir=$ROOT/work" "$ROOT/system" || exit 77
        cp "$DEB" "$ROOT/system/shimd.deb"
        mount --bind /proc "$ROOT/system/proc"
        mount -t tmpfs none "$ROOT/system/tmp"
        mount -t tmpfs none "$ROOT/system/run"
        mount -t devtmpfs none "$ROOT/system/dev" || mount --bind /dev "$ROOT/system/dev"
        chroot "$ROOT/system" /bin/sh -ec '
            dpkg -i /shimd.deb
            shimd version
            dpkg -s shimd | grep Status
            test ! -e /run/shimd || echo "it was started"
            test ! -e /etc/systemd/system/multi-user.target.wants/shimd.service || echo "it was enabled"
            dpkg -i /shimd.deb
            dpkg -P shimd
            test -e /usr/bin/shimd || echo "it is gone"
        '
    "#;
    let root = world.file("overlay");
    fs::create_dir(&root)?;
    let mut command = world.command("unshare");
    command.args(["--mount", "--propagation", "private", "/bin/sh", "-c", script]);
    command.env("ROOT", &root).env("DEB", deb);
    let ran = run(command, LONG)?;
    world.note(&ran);
    if ran.code == Some(77) {
        println!("package: not installed, no overlay of / may be mounted here");
        return Ok(());
    }
    let ran = ran.success()?;
    for words in
        [&format!("shimd {}\n", env!("CARGO_PKG_VERSION")), "Status: install ok installed\n", "it is gone\n"]
    {
        ensure!(ran.stdout.contains(words), "{words:?} is missing:\n{ran}");
    }
    ensure!(!ran.stdout.contains("it was "), "a surprise:\n{ran}");
    Ok(())
}

/// The unit, as far as it is the same wherever the program lies.
fn unit(program: &Path) -> Result<String> {
    let text = fs::read_to_string(project("packaging/shimd.service"))?;
    ensure!(text.contains("ExecStart=/usr/bin/shimd "), "the unit runs the package's program");
    Ok(text.replace("/usr/bin/shimd", &program.display().to_string()))
}

fn verified(world: &World) -> Result {
    let file = world.write(UNIT, &unit(&world.bin("shimd"))?)?;
    systemd::verify(world, &file)
}

/// A real systemd with the package's unit: over a restart of the unit, a SIGKILL, a stop.
fn outlive(world: &World) -> Result {
    // As the plugin starts one: the unit's daemon takes its place.
    let first = world.start_daemon()?;
    let mut spec = specs::activated(world, "web", &["rpc.sock"], &["--stop-accepting"]);
    spec = specs::with(spec, json!({"restart": {"policy": "always", "delay": "20ms"}}));
    let old = world.up(&spec)?;
    let path = world.socket("web", "rpc.sock");
    let inode = || world.rpc("socket.check", json!({"names": ["web"]}))?.only()?.int("inode");
    let before = inode()?;

    systemd::wanted(world, UNIT, &unit(&world.bin("shimd"))?)?;
    let dropped = systemd::units(world)?.join("shimd.service.d");
    fs::create_dir_all(&dropped)?;
    let places = format!(
        "[Unit]\nDefaultDependencies=no\n[Service]\nEnvironment=SHIMD_HOME={} HERO_SOCKET_DIR={}\n",
        world.home().display(),
        world.sockets().display()
    );
    fs::write(dropped.join("world.conf"), places)?;
    let Some(manager) = Systemd::start(world, UNIT)? else { return Ok(()) };
    let main = || -> Result<i32> { Ok(manager.show(UNIT, "MainPID")?.parse()?) };
    let serves = |what: &str, since: i32| {
        wait_until(SOON, what, || {
            world.daemon_pid().is_ok_and(|pid| pid != since && main().is_ok_and(|main| main == pid))
        })
    };
    let same = |what: &str| -> Result {
        let row = world.wait_status("web", "running", SOON)?;
        ensure!(row.pid("pid")? == old && inode()? == before && ping(&path)? == old, "{what}: {row}");
        Ok(())
    };
    serves("the unit's daemon serves in the place of the first", first)?;
    same("the service did not notice")?;
    let kept = || manager.show(UNIT, "NFileDescriptorStore").is_ok_and(|count| count == "1");
    wait_until(SOON, "systemd keeps the listener", kept)?;

    let second = main()?;
    manager.ctl(&["restart", UNIT])?;
    serves("a restart of the unit brings another daemon", second)?;
    same("a restart of the unit")?;
    wait_until(SOON, "systemd keeps the listener still", kept)?;

    // Both at once, and a client in the queue: only systemd has the listener.
    let third = main()?;
    processes::signal_taken(old, Signal::SIGUSR1)?;
    ensure!(processes::signal(third, Signal::SIGKILL) && processes::signal(old, Signal::SIGKILL), "killed");
    let waiting = ask_and_wait(&path, 3)?;
    serves("systemd starts another", third)?;
    for client in waiting {
        ensure!(pong(client)? != old, "the next instance answers");
    }
    let row = world.wait_status("web", "running", SOON)?;
    ensure!(inode()? == before, "the same listener");

    let (fourth, web) = (main()?, row.pid("pid")?);
    manager.ctl(&["stop", UNIT])?;
    ensure!(manager.show(UNIT, "Result")? == "success", "an orderly end");
    ensure!(!processes::alive(fourth) && ping(&path)? == web, "a stop of the unit leaves the service");
    manager.ctl(&["start", UNIT])?;
    serves("it is started again", fourth)?;
    ensure!(world.wait_status("web", "running", SOON)?.pid("pid")? == web, "and takes the service up");
    // An end by anybody else would not last, which the one command that asks for it says.
    let fifth = main()?;
    if let Some(reason) = Need::Nushell.lacking() {
        println!("package: proc shim stop is not tried: {reason}");
    } else {
        for (command, help) in [
            ("proc shim stop", "systemctl stop shimd"),
            ("proc shim stop --services", "proc list | proc stop, then systemctl stop shimd"),
        ] {
            let refused = world.nu_refuses(command, "proc::failed")?;
            ensure!(refused.mentions("systemd runs this shimd") && refused.help == help, "{refused}");
        }
        ensure!(processes::alive(fifth) && main()? == fifth, "it goes on");
    }
    world.rpc("shim.shutdown", json!({}))?;
    serves("systemd starts another", fifth)?;
    world.rpc("service.stop", json!({"name": "web"}))?;
    manager.end()
}
