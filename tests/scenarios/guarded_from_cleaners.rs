//! A socket's folder is guarded while its instance lives: systemd-tmpfiles passes over it, and takes a sibling's socket.

use super::relink_puts_it_back::serve;
use super::wrap_heals::up;
use libtest_mimic::Trial;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, scenario, wait_until};
use std::fs::{self, File};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, SystemTime};

const SOON: Duration = Duration::from_secs(20);
const DAY: Duration = Duration::from_secs(86_400);

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "guarded_from_cleaners::by_age",
            &[Need::Daemon, Need::Nushell, Need::Program("systemd-tmpfiles")],
            by_age,
        ),
        scenario(
            "guarded_from_cleaners::beneath_wrap",
            &[Need::Daemon, Need::Program("systemd-tmpfiles")],
            beneath_wrap,
        ),
        scenario("guarded_from_cleaners::times", &[Need::Daemon, Need::Nushell], times),
    ]
}

fn is_guarded(folder: &Path) -> Result<bool> {
    let tried = Flock::lock(File::open(folder)?, FlockArg::LockExclusiveNonblock);
    Ok(tried.is_err_and(|(_, errno)| errno == Errno::EWOULDBLOCK))
}

fn grow_old(world: &World, path: &Path) -> Result {
    world.hand("touch", &["-h".as_ref(), "-d".as_ref(), "2 days ago".as_ref(), path.as_os_str()]).map(drop)
}

fn is_young(path: &Path) -> Result<bool> {
    let modified = fs::symlink_metadata(path)?.modified()?;
    Ok(SystemTime::now().duration_since(modified).unwrap_or_default() < DAY)
}

fn by_age(world: &World) -> Result {
    // Renamed into place: its name is none that the kernel lists, which alone would spare it.
    let pid = serve(world, &["rpc.sock"], &["--bind-temp-rename"])?;
    let (folder, path) = (world.sockets().join("web"), world.socket("web", "rpc.sock"));
    wait_until(SOON, "its folder is locked", || is_guarded(&folder).unwrap_or(false))?;
    clean(world, &world.sockets(), &path)?;
    ensure!(ping(&path)? == pid, "it is reached");
    let row = world.socket_row("web", "rpc.sock")?;
    ensure!(row.text("verdict")? == "ok" && row.int("relinked")? == 0, "it was never lost: {row}");
    let doctor = world.nu_json("proc doctor | where check == cleaners | get 0.detail")?;
    ensure!(doctor.to_string().contains("are locked"), "{doctor}");
    world.nu_json("proc stop web")?;
    ensure!(!is_guarded(&folder)?, "nothing is held of a service that is down");
    Ok(())
}

/// Makes the socket old, beside one that nobody guards, and lets the cleaner loose.
fn clean(world: &World, above: &Path, path: &Path) -> Result {
    let sibling = above.join("sibling");
    fs::create_dir(&sibling)?;
    let bare = sibling.join("rpc.sock");
    let _listener = UnixListener::bind(sibling.join("made"))?;
    fs::rename(sibling.join("made"), &bare)?;
    grow_old(world, &bare)?;
    grow_old(world, path)?;
    let rule = world.write("all.conf", &format!("d {} - - - m:1d\n", above.display()))?;
    world.hand("systemd-tmpfiles", &["--clean".as_ref(), rule.as_os_str()])?;
    ensure!(!bare.exists(), "the cleaner takes what is not guarded");
    Ok(())
}

fn beneath_wrap(world: &World) -> Result {
    let (mut wrapped, path, pid) = up(world, &[], &["--bind-temp-rename"])?;
    let folder = path.parent().unwrap_or(&path);
    wait_until(SOON, "its folder is locked", || is_guarded(folder).unwrap_or(false))?;
    clean(world, world.folder(), &path)?;
    ensure!(path.exists() && ping(&path)? == pid, "it was never lost");
    wrapped.signal(Signal::SIGTERM)?;
    wrapped.ends(SOON)?;
    ensure!(!is_guarded(folder)?, "nothing is held once it has ended");
    Ok(())
}

fn times(world: &World) -> Result {
    let pid = serve(world, &["rpc.sock"], &[])?;
    let path = world.socket("web", "rpc.sock");
    grow_old(world, &path)?;
    ensure!(!is_young(&path)?, "it is old");
    world.kill_daemon()?;
    world.start_daemon()?;
    wait_until(SOON, "its times are renewed", || is_young(&path).unwrap_or(false))?;
    ensure!(ping(&path)? == pid, "the same process answers");
    ensure!(world.socket_row("web", "rpc.sock")?.text("verdict")? == "ok", "all is well");
    Ok(())
}
