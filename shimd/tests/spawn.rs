//! Spawning through the real trampoline: what the service is, what can go wrong, and what must not leak.

mod common;

use common::{Folder, plan, run};
use nix::sys::wait::WaitStatus;

#[tokio::test]
async fn program_runs_with_its_arguments_and_output() {
    let folder = Folder::new();
    let plan = plan(&["sh", "-c", "echo \"$0 $1\"; echo oops >&2; exit 7", "a b", "c"]);
    let service = run(&folder, &plan).await.unwrap();
    assert!(matches!(service.wait(), WaitStatus::Exited(_, 7)));
    assert_eq!((folder.read("out").as_str(), folder.read("err").as_str()), ("a b c\n", "oops\n"));
}
