use super::*;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("svc")).unwrap();
        World { folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("svc/rpc.sock")
    }

    fn pins(&self) -> Arc<PinFolder> {
        Arc::new(PinFolder::open(&self.folder.path().join(".shimd")).unwrap())
    }

    fn pin(&self) -> Pin {
        let ino = self.socket().metadata().unwrap().ino() as u32;
        Pin::make(&self.socket(), &self.pins(), "p".as_ref(), ino).unwrap()
    }
}

fn answers(path: &Path, listener: &UnixListener) -> bool {
    let client = UnixStream::connect(path);
    client.is_ok() && listener.accept().is_ok()
}

#[test]
fn a_lost_socket_is_linked_back_and_answers() {
    let world = World::new();
    let listener = UnixListener::bind(world.socket()).unwrap();
    let pin = world.pin();
    assert!(pin.holds());
    assert_eq!(world.folder.path().join(".shimd").metadata().unwrap().mode() & 0o777, 0o700);
    fs::remove_file(world.socket()).unwrap();
    assert_eq!(pin.link_back(&world.socket()).unwrap(), LinkedBack { folder_made: false });
    assert!(answers(&world.socket(), &listener));
    let pins = pin.folder().clone();
    pin.remove();
    assert_eq!(pins.names(), Vec::<OsString>::new());
    assert!(world.socket().exists());
}

#[test]
fn the_folder_is_made_again_as_it_was() {
    let world = World::new();
    let folder = world.folder.path().join("svc");
    fs::set_permissions(&folder, Permissions::from_mode(0o2751)).unwrap();
    let root = geteuid().is_root();
    if root {
        std::os::unix::fs::chown(&folder, Some(65534), Some(65533)).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o2751)).unwrap();
    }
    let listener = UnixListener::bind(world.socket()).unwrap();
    let pin = world.pin();
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(pin.link_back(&world.socket()).unwrap(), LinkedBack { folder_made: true });
    assert!(answers(&world.socket(), &listener));
    let made = folder.metadata().unwrap();
    assert_eq!(made.mode() & 0o7777, 0o2751);
    if root {
        assert_eq!((made.uid(), made.gid()), (65534, 65533));
    }
}

#[test]
fn nothing_that_lies_there_is_replaced() {
    let world = World::new();
    let _listener = UnixListener::bind(world.socket()).unwrap();
    let pin = world.pin();
    fs::remove_file(world.socket()).unwrap();
    fs::write(world.socket(), "mine").unwrap();
    let occupied = LinkError::Occupied { path: world.socket() };
    assert_eq!(pin.link_back(&world.socket()).unwrap_err(), occupied);
    assert_eq!(pin.exchange_dead(&world.socket(), &mut |_| true).unwrap_err(), occupied);
    assert_eq!(fs::read(world.socket()).unwrap(), b"mine");
}

#[test]
fn a_dead_socket_is_exchanged_and_a_live_one_is_put_back() {
    let world = World::new();
    let listener = UnixListener::bind(world.socket()).unwrap();
    let pin = world.pin();
    fs::remove_file(world.socket()).unwrap();
    drop(UnixListener::bind(world.socket()).unwrap());
    let mut asked = Vec::new();
    pin.exchange_dead(&world.socket(), &mut |path| {
        asked.push(path.to_owned());
        true
    })
    .unwrap();
    assert_eq!(asked.len(), 2);
    assert!(answers(&world.socket(), &listener));
    assert_eq!(pin.folder().names(), ["p"]);

    // Somebody binds between the two questions: dead at first, alive when it was taken out.
    fs::remove_file(world.socket()).unwrap();
    let thief = UnixListener::bind(world.socket()).unwrap();
    let ino = world.socket().metadata().unwrap().ino();
    let mut answers_in_turn = [true, false].into_iter();
    let error = pin.exchange_dead(&world.socket(), &mut |_| answers_in_turn.next().unwrap()).unwrap_err();
    assert_eq!(error, LinkError::Occupied { path: world.socket() });
    assert_eq!(world.socket().metadata().unwrap().ino(), ino);
    assert!(answers(&world.socket(), &thief));
    assert_eq!(pin.folder().names(), ["p"]);
}

#[test]
fn a_pin_that_is_gone_is_told() {
    let world = World::new();
    let _listener = UnixListener::bind(world.socket()).unwrap();
    let pin = world.pin();
    fs::remove_file(world.socket()).unwrap();
    fs::remove_file(pin.path()).unwrap();
    let gone = LinkError::NoPin { path: world.socket(), pin: pin.path() };
    assert_eq!(pin.link_back(&world.socket()).unwrap_err(), gone);
}

#[test]
fn a_pin_of_an_earlier_run_is_taken_over_and_a_dead_one_replaced() {
    let world = World::new();
    let listener = UnixListener::bind(world.socket()).unwrap();
    let ino = world.socket().metadata().unwrap().ino() as u32;
    drop(world.pin());
    fs::remove_file(world.socket()).unwrap();
    let found = Pin::found(&world.socket(), &world.pins(), "p".as_ref(), ino).unwrap();
    found.link_back(&world.socket()).unwrap();
    assert!(answers(&world.socket(), &listener));
    // The next instance: the old pin keeps the old number, so the new socket has another.
    drop(listener);
    fs::remove_file(world.socket()).unwrap();
    let listener = UnixListener::bind(world.socket()).unwrap();
    assert!(!found.is_of(world.socket().metadata().unwrap().ino() as u32));
    let pin = world.pin();
    fs::remove_file(world.socket()).unwrap();
    pin.link_back(&world.socket()).unwrap();
    assert!(answers(&world.socket(), &listener));
}

#[test]
fn what_took_the_place_just_now_is_not_pinned() {
    let world = World::new();
    let _listener = UnixListener::bind(world.socket()).unwrap();
    let wrong = (world.socket().metadata().unwrap().ino() as u32).wrapping_add(1);
    let error = Pin::make(&world.socket(), &world.pins(), "p".as_ref(), wrong).unwrap_err();
    assert_eq!(error.errno, Errno::ESTALE);
    assert_eq!(world.pins().names(), Vec::<OsString>::new());
}

#[test]
fn pins_lie_outside_the_sockets_folder_where_they_can() {
    let own = format!(".shimd-{}", geteuid());
    let at = |socket: &str, root: Option<&str>| places(Path::new(socket), root.map(Path::new));
    assert_eq!(at("/r/svc/rpc.sock", Some("/r"))[0], Path::new("/r/.shimd"));
    assert_eq!(at("/run/redis/redis.sock", Some("/r"))[0], Path::new("/run").join(&own));
    // Nothing of ours in the root of the tree.
    assert_eq!(at("/tmp/x.sock", None), [Path::new("/tmp").join(&own)]);
}

#[test]
fn a_folder_of_another_user_is_not_used() {
    if !geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let world = World::new();
    let pins = world.folder.path().join(".shimd");
    fs::create_dir(&pins).unwrap();
    std::os::unix::fs::chown(&pins, Some(65534), None).unwrap();
    let error = PinFolder::open(&pins).unwrap_err();
    assert_eq!(error.problem, FolderProblem::OthersOwn { uid: 65534, ours: 0 });
}
