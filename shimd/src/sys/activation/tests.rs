//! Real sockets, in a folder of each test.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, Shutdown, recvmsg, shutdown};

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("shimd-activation-").tempdir().unwrap()
}

fn plain(path: &Path) -> Wanted {
    Wanted { path: path.to_owned(), kind: SocketKind::Stream, backlog: None, owner: None, umask: 0o022 }
}

/// A process that has the listener open, and nothing else to do.
struct Holder(Child);

impl Holder {
    fn of(listener: &impl AsFd) -> Holder {
        let fd = listener.as_fd().try_clone_to_owned().unwrap();
        Holder(Command::new("sleep").arg("1000").stdin(Stdio::from(fd)).spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_bound_listener_takes_clients_and_waits_for_whoever_accepts() {
    let folder = folder();
    let path = folder.path().join("s");
    let held = Held::bind(&Wanted { backlog: Some(7), ..plain(&path) }).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"early").unwrap();
    let listener = held.listening(&mut Diag::open().unwrap()).unwrap();
    assert_eq!((listener.pending, listener.backlog), (1, 7));
    assert_eq!(listener.id(), held.id());
    let (mut served, _) = UnixListener::from(held.fd.try_clone().unwrap()).accept().unwrap();
    let mut said = [0; 5];
    served.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"early");
}

#[test]
fn without_a_backlog_as_many_wait_as_the_system_lets() {
    let folder = folder();
    let held = Held::bind(&plain(&folder.path().join("s"))).unwrap();
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let listener = held.listening(&mut Diag::open().unwrap()).unwrap();
    assert_eq!(listener.backlog, most.trim().parse::<u32>().unwrap());
}

#[test]
fn every_type_and_an_abstract_name_can_be_bound() {
    let folder = folder();
    let abstract_name = format!("@shimd-test/{}", folder.path().display());
    for kind in [SocketKind::Stream, SocketKind::Dgram, SocketKind::Seqpacket] {
        for path in [folder.path().join(kind.as_str()), format!("{abstract_name}/{}", kind.as_str()).into()] {
            let wanted = Wanted { kind, ..plain(&path) };
            let held = Held::bind(&wanted).unwrap();
            assert!(held.listening(&mut Diag::open().unwrap()).is_some(), "{wanted:?}");
            let copy = held.fd.try_clone().unwrap();
            assert_eq!(Held::adopt(copy, &wanted, Some(held.id())).unwrap().id(), held.id());
            assert_eq!(path.exists(), path.is_absolute());
        }
    }
    let client = UnixDatagram::unbound().unwrap();
    assert!(client.send_to(b"x", folder.path().join("dgram")).is_err(), "closed with its holder");
}

#[test]
fn the_dentry_has_the_mode_of_the_umask_whatever_the_daemon_s_is() {
    let folder = folder();
    for umask in [0o000, 0o022, 0o077, 0o117] {
        let path = folder.path().join(format!("{umask:o}"));
        let _held = Held::bind(&Wanted { umask, ..plain(&path) }).unwrap();
        assert_eq!(path.symlink_metadata().unwrap().permissions().mode() & 0o7777, 0o777 & !umask);
    }
}

#[test]
fn the_dentry_is_its_user_s() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let folder = folder();
    let path = folder.path().join("s");
    let held = Held::bind(&Wanted { owner: Some((4242, 4343)), ..plain(&path) }).unwrap();
    let found = path.symlink_metadata().unwrap();
    assert_eq!((found.uid(), found.gid()), (4242, 4343));
    assert_eq!(held.listening(&mut Diag::open().unwrap()).unwrap().uid, Some(4242));
}

#[test]
fn owner_and_mode_can_be_changed_while_clients_wait() {
    let folder = folder();
    let path = folder.path().join("s");
    let held = Held::bind(&plain(&path)).unwrap();
    // A pin.
    std::fs::hard_link(&path, folder.path().join("pin")).unwrap();
    let _client = UnixStream::connect(&path).unwrap();
    let owner = nix::unistd::geteuid().is_root().then_some((4242, 4343));
    let held = held.owned_as(&Wanted { owner, umask: 0o077, ..plain(&path) }).unwrap();
    let found = path.symlink_metadata().unwrap();
    assert_eq!(found.mode() & 0o7777, 0o700);
    assert!(owner.is_none_or(|owner| owner == (found.uid(), found.gid())));
    assert_eq!(held.listening(&mut Diag::open().unwrap()).unwrap().pending, 1);
}

#[test]
fn nothing_is_bound_over() {
    let folder = folder();
    let path = folder.path().join("s");
    std::fs::write(&path, "precious").unwrap();
    let error = Held::bind(&plain(&path)).unwrap_err();
    assert!(matches!(&error, BindError::InUse { what, .. } if what.contains("came to lie")), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();

    let stranger = Holder::of(&UnixListener::bind(&path).unwrap());
    let error = Held::bind(&plain(&path)).unwrap_err().to_string();
    assert!(error.contains(&format!("foreign: pid {} (sleep)", stranger.pid())), "{error}");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("elsewhere", &path).unwrap();
    assert!(matches!(Held::bind(&plain(&path)), Err(BindError::InUse { .. })));
    assert!(!folder.path().join("elsewhere").exists());
}

#[test]
fn a_path_may_have_107_bytes() {
    let folder = folder();
    let room = 107 - folder.path().as_os_str().len() - 1;
    let longest = folder.path().join("x".repeat(room));
    let _held = Held::bind(&plain(&longest)).unwrap();
    UnixStream::connect(&longest).unwrap();
    let error = Held::bind(&plain(&folder.path().join("x".repeat(room + 1)))).unwrap_err();
    assert!(error.to_string().contains("107"), "{error}");
    let error = Held::bind(&plain(&folder.path().join("no/s"))).unwrap_err();
    assert!(matches!(error, BindError::Refused { errno: Errno::ENOENT, .. }), "{error}");
}

#[test]
fn what_is_not_the_listener_is_not_adopted() {
    let folder = folder();
    let path = folder.path().join("s");
    let wanted = plain(&path);
    let held = Held::bind(&wanted).unwrap();
    let refused = |fd: OwnedFd, wanted: &Wanted, known| Held::adopt(fd, wanted, known).unwrap_err().why;
    let copy = || held.fd.try_clone().unwrap();
    let other = ListenerId { cookie: held.id().cookie + 1, ..held.id() };
    assert!(refused(copy(), &wanted, Some(other)).contains("another than before"));
    assert!(refused(copy(), &plain(&folder.path().join("t")), None).contains("bound to"));
    assert!(refused(copy(), &Wanted { kind: SocketKind::Dgram, ..wanted.clone() }, None).contains("type"));
    let connection = UnixStream::connect(&path).unwrap();
    assert!(refused(connection.into(), &wanted, None).contains("bound to"));
    // A connection that was accepted carries its listener's name.
    let (accepted, _) = UnixListener::from(copy()).accept().unwrap();
    assert!(refused(accepted.into(), &wanted, None).contains("does not listen"));
    let internet = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    refused(internet.into(), &wanted, None);
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(refused(file.into(), &wanted, None).contains("cannot be looked at"));
}

#[test]
fn what_an_instance_changed_is_put_back() {
    let folder = folder();
    let held = Held::bind(&plain(&folder.path().join("s"))).unwrap();
    let instance = UnixListener::from(held.fd.try_clone().unwrap());
    instance.set_nonblocking(true).unwrap();
    listen(&instance, Some(1)).unwrap();
    held.refresh(Some(9)).unwrap();
    let flags = OFlag::from_bits_retain(fcntl(&instance, FcntlArg::F_GETFL).unwrap());
    assert!(!flags.contains(OFlag::O_NONBLOCK));
    let mut diag = Diag::open().unwrap();
    assert_eq!(held.listening(&mut diag).unwrap().backlog, 9);
    shutdown(held.fd.as_raw_fd(), Shutdown::Both).unwrap();
    assert_eq!(held.listening(&mut diag), None, "an instance shut it down");
}

#[test]
fn its_own_dentry_is_removed_and_no_other() {
    let folder = folder();
    let path = folder.path().join("s");
    let mut diag = Diag::open().unwrap();
    let held = Held::bind(&plain(&path)).unwrap();
    assert!(matches!(held.unlink(&mut diag), Ok(Cleaned::Removed(_))));
    assert!(!path.exists());
    let held = Held::bind(&plain(&path)).unwrap();
    std::fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    assert_eq!(held.unlink(&mut diag).unwrap(), Cleaned::Nothing);
    UnixStream::connect(&path).unwrap();
}

#[test]
fn it_is_taken_back_from_a_process_that_holds_it() {
    let folder = folder();
    let path = folder.path().join("s");
    let wanted = plain(&path);
    let held = Held::bind(&wanted).unwrap();
    let (id, holder) = (held.id(), Holder::of(&held));
    let idle = Holder::of(&std::fs::File::open("/dev/null").unwrap());
    drop(held);
    let pids = [idle.pid(), holder.pid()];
    // By the record, and without one by the path.
    for known in [Some(id), None, Some(ListenerId { inode: 1, cookie: 1 })] {
        let back = retake(&wanted, known, &pids).unwrap().unwrap();
        assert_eq!(back.id(), id);
        let flags = fcntl(&back, FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, libc::FD_CLOEXEC, "it does not leak into other services");
    }
    assert!(retake(&wanted, Some(id), &[idle.pid()]).unwrap().is_none());
    assert!(retake(&wanted, Some(id), &[]).unwrap().is_none());
    assert!(retake(&plain(&folder.path().join("t")), None, &pids).unwrap().is_none());
    drop(holder);
    assert!(retake(&wanted, Some(id), &pids).unwrap().is_none());
}

#[test]
fn names_of_descriptors_hold_nothing_that_is_not_allowed() {
    let names = [
        ("rpc.sock", "rpc.sock"),
        ("/run/a b/x:y.sock", "x_y.sock"),
        ("@a/b", "@a/b"),
        ("tab\tnew\nline", "tab_new_line"),
        ("naïve", "na_ve"),
    ];
    for (declared, name) in names {
        assert_eq!(fd_name(declared), name);
    }
    assert_eq!(fd_name(&"x".repeat(300)).len(), 255);
}

#[test]
fn the_service_manager_is_given_the_listener_and_told_to_forget_it() {
    let folder = folder();
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    let store = FdStore::of(Some(folder.path().join("notify").as_os_str())).unwrap();
    let held = Held::bind(&plain(&folder.path().join("s"))).unwrap();
    store.keep("web", "a:b.sock", &held).unwrap();
    let mut text = [0; 256];
    let mut control = nix::cmsg_space!([i32; 4]);
    let (length, fds) = {
        let mut parts = [std::io::IoSliceMut::new(&mut text)];
        let got = recvmsg::<()>(manager.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
        let got = got.unwrap();
        let rights = got.cmsgs().unwrap().find_map(|part| match part {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        });
        (got.bytes, rights.unwrap())
    };
    assert_eq!(std::str::from_utf8(&text[..length]).unwrap(), "FDSTORE=1\nFDPOLL=0\nFDNAME=web/a%3Ab.sock");
    // SAFETY: the message brought it, and nobody else owns it.
    let fd = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fds[0]) };
    assert_eq!(identify(&fd).unwrap(), held.id());
    store.forget("web", "a:b.sock").unwrap();
    let length = manager.recv(&mut text).unwrap();
    assert_eq!(&text[..length], b"FDSTOREREMOVE=1\nFDNAME=web/a%3Ab.sock");
    for none in [None, Some("vsock:2:1"), Some("")] {
        assert!(FdStore::of(none.map(std::ffi::OsStr::new)).is_none());
    }
}

/// What a child of [`what_the_service_manager_kept_is_found_once`] does: it was started as a service manager would.
const CHILD: &str = "SHIMD_TEST_INHERITS";

#[test]
fn what_the_service_manager_kept_is_found_once() {
    if let Some(path) = std::env::var_os(CHILD) {
        let env = |name: &str| std::env::var_os(name);
        let mut found = inherited(&env);
        assert_eq!(found.len(), 1);
        let (name, fd) = found.remove(0);
        assert_eq!(name, "web/s");
        let held = Held::adopt(fd, &plain(Path::new(&path)), None).unwrap();
        assert_eq!(fcntl(&held, FcntlArg::F_GETFD).unwrap(), libc::FD_CLOEXEC);
        assert!(inherited(&env).is_empty(), "they have an owner");
        return;
    }
    let folder = folder();
    let held = Held::bind(&plain(&folder.path().join("s"))).unwrap();
    let start = |pid: &str| {
        let run = format!(
            "LISTEN_PID={pid} LISTEN_FDS=1 LISTEN_FDNAMES=web/s exec \"$0\" --exact --quiet \
             sys::activation::tests::what_the_service_manager_kept_is_found_once 3<&0 </dev/null"
        );
        let mut child = Command::new("sh");
        child.args(["-c", &run]).arg(std::env::current_exe().unwrap()).env(CHILD, held.path());
        child.stdin(Stdio::from(held.fd.try_clone().unwrap())).output().unwrap()
    };
    let good = start("$$");
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stdout));
    assert!(!start("1").status.success(), "it was another's");
}
