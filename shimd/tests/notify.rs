//! sd_notify from other processes, over the abstract address.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod common;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use common::{DEADLINE, Folder, is_root, plan, run};
use shimd::sys::notify::{Message, Notify};
use shimd::sys::spawn::ExecPlan;
use shimd::sys::tree::home_tag;
use shimd::sys::users;

/// Not a test but a service: the test binary itself, when it is given an address and something to say.
#[test]
fn speak() {
    let Ok(address) = std::env::var("NOTIFY_SOCKET") else { return };
    let name = address.strip_prefix('@').unwrap();
    let to = SocketAddr::from_abstract_name(name).unwrap();
    let socket = UnixDatagram::unbound().unwrap();
    let text = std::env::var("SAY").unwrap();
    socket.send_to_addr(text.as_bytes(), &to).unwrap();
}

fn speaker(notify: &Notify, mark: &str, text: &str) -> ExecPlan {
    let own = std::env::current_exe().unwrap();
    let mut plan = plan(&[own.to_str().unwrap(), "--exact", "speak", "--nocapture"]);
    plan.env.insert("NOTIFY_SOCKET".into(), notify.address().into());
    plan.env.insert("SHIMD_INSTANCE".into(), mark.into());
    plan.env.insert("SAY".into(), text.into());
    plan
}

async fn next(notify: &Notify) -> Message {
    tokio::time::timeout(DEADLINE, notify.recv()).await.expect("a message in time").unwrap()
}

#[tokio::test]
async fn message_tells_its_sender() {
    let folder = Folder::new();
    let notify = Notify::bind(&home_tag(folder.path())).unwrap();
    let plan = speaker(&notify, "tag/svc/3", "READY=1\nSTATUS=at your service\nBARRIER=1");
    let service = run(&folder, &plan).await.unwrap();
    let message = next(&notify).await;
    assert_eq!((message.pid, message.uid), (service.pid(), nix::unistd::geteuid().as_raw()));
    assert!(message.notification.ready);
    assert_eq!(message.notification.status.as_deref(), Some("at your service"));
    assert!(message.mark.is_none_or(|mark| mark == "tag/svc/3"), "none only if it was gone already");
    service.wait();
}

#[tokio::test]
async fn another_user_reaches_it() {
    if !is_root() {
        return eprintln!("skipped: becoming another user needs root");
    }
    let folder = Folder::new();
    let notify = Notify::bind(&home_tag(folder.path())).unwrap();
    let ids = users::resolve(Some("nobody"), None).unwrap().unwrap().ids;
    let uid = ids.uid;
    let service = match run(&folder, &ExecPlan { ids: Some(ids), ..speaker(&notify, "m", "READY=1") }).await {
        Ok(service) => service,
        Err(why) => return eprintln!("skipped: the user nobody cannot run the test's own binary: {why}"),
    };
    assert_eq!(next(&notify).await.uid, uid);
    service.wait();
}

#[tokio::test]
async fn nonsense_is_dropped_and_the_next_message_taken() {
    let folder = Folder::new();
    let notify = Notify::bind(&home_tag(folder.path())).unwrap();
    let to = SocketAddr::from_abstract_name(notify.address().trim_start_matches('@')).unwrap();
    let socket = UnixDatagram::unbound().unwrap();
    let oversized = [b"READY=1\nSTATUS=".as_slice(), &[b'x'; 8000]].concat();
    for nonsense in [b"".as_slice(), b"nonsense", b"\xff=\xfe", &oversized] {
        socket.send_to_addr(nonsense, &to).unwrap();
    }
    socket.send_to_addr(b"STOPPING=1\nX_NOT_KNOWN=1\n", &to).unwrap();
    let message = next(&notify).await;
    assert!(message.notification.stopping && !message.notification.ready, "{message:?}");
    assert_eq!(message.pid, std::process::id() as i32);
}

#[tokio::test]
async fn address_that_is_taken_is_an_error_that_names_it() {
    let folder = Folder::new();
    let tag = home_tag(folder.path());
    let first = Notify::bind(&tag).unwrap();
    let error = Notify::bind(&tag).unwrap_err();
    assert_eq!(error.errno, nix::errno::Errno::EADDRINUSE);
    assert!(error.to_string().contains(first.address()), "{error}");
}
