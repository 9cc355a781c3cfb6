//! The fault matrix: every way in which a Unix socket gets out of order, each in a file named after it, with real
//! processes. A file holds the row of the table (`ROW`) and what is done (`run`).
//!
//! `cargo xtask test` runs them after the scenarios, `cargo test -p scenarios --test faults NAME` runs some, and
//! `cargo xtask faults-table` writes their table, docs/faults.md.

use libtest_mimic::{Arguments, Failed, Trial};
use scenarios::fault_matrix::{Row, page, trials};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod abstract_socket_closed;
mod accept_loop_deadlocked;
mod all_sockets_removed;
mod attributes_touched;
mod backlog_full;
mod bind_mount_of_old_inode;
mod bind_mount_of_same_file;
mod bound_before_it_listens;
mod bound_by_relative_name;
mod bound_where_only_it_sees;
mod child_left_by_killed_main;
mod client_library_cleans_up;
mod clients_by_group;
mod clients_that_give_up;
mod closed_and_not_removed;
mod closed_and_removed_by_service;
mod connections_keep_the_name;
mod daemon_killed_and_started;
mod dead_socket_renamed_over;
mod denied_while_daemon_down;
mod descriptor_passed_to_stranger;
mod executed_anew_with_listener_open;
mod fifo_in_place;
mod folder_chmod_000;
mod folder_closed_to_its_clients;
mod folder_in_place;
mod folder_removed;
mod folder_renamed_and_back;
mod folder_swapped_for_new;
mod found_and_deleted_by_age;
mod hard_linked_back;
mod held_by_a_debugger;
mod in_own_mount_namespace;
mod in_own_network_namespace;
mod inode_number_comes_again;
mod killed_and_left_its_file;
mod killed_while_daemon_down;
mod lazily_unmounted;
mod listeners_churn_beside;
mod live_socket_renamed_over;
mod logout_takes_run_folder;
mod logout_unmounts_run_folder;
mod mounted_over_folder;
mod mounted_over_parent;
mod never_bound;
mod old_instance_unlinks_new_file;
mod on_btrfs;
mod on_overlayfs;
mod on_tmpfs;
mod on_xfs;
mod one_path_by_two_names;
mod orphan_keeps_the_listener;
mod other_link_removed;
mod other_service_steals_path;
mod parent_chmod_000;
mod parent_removed;
mod parent_renamed_and_back;
mod regular_file_in_place;
mod regular_file_moved_over;
mod reload_within_settle;
mod removed_in_clean_restart;
mod removed_while_daemon_down;
mod renamed_away_and_back;
mod renamed_into_place;
mod second_instance_fails_and_unlinks;
mod second_instance_steals_path;
mod slow_server_falls_behind;
mod slow_server_keeps_up;
mod socket_chmod_000;
mod socket_chowned;
mod socket_closed_to_its_clients;
mod stolen_while_daemon_down;
mod stopped_while_daemon_down;
mod stopped_with_client_waiting;
mod symlink_to_another_server;
mod symlink_to_nothing;
mod symlink_to_the_socket;
mod tmp_cleaner_by_age;
mod tmp_cleaner_spares_it;
mod two_services_one_path;
mod unlinked_by_another_user;
mod unlinked_by_rm;
mod unlinked_by_root;
mod worker_exit_unlinks;
mod worker_outlives_main;
mod workers_all_stopped;

/// The rows and the trials of the scenarios, in the order of the docs.
macro_rules! faults {
    ($($name:ident,)*) => {
        fn rows() -> Vec<Row> {
            vec![$($name::ROW),*]
        }

        fn matrix() -> Vec<Trial> {
            assert_names(&[$((stringify!($name), $name::ROW.name)),*]);
            [$(trials($name::ROW, $name::run)),*].into_iter().flatten().collect()
        }
    };
}

faults! {
    unlinked_by_rm,
    unlinked_by_another_user,
    unlinked_by_root,
    old_instance_unlinks_new_file,
    worker_exit_unlinks,
    second_instance_steals_path,
    second_instance_fails_and_unlinks,
    client_library_cleans_up,
    tmp_cleaner_by_age,
    tmp_cleaner_spares_it,
    found_and_deleted_by_age,
    folder_removed,
    parent_removed,
    logout_takes_run_folder,
    logout_unmounts_run_folder,
    renamed_away_and_back,
    folder_renamed_and_back,
    parent_renamed_and_back,
    folder_swapped_for_new,
    regular_file_moved_over,
    regular_file_in_place,
    folder_in_place,
    fifo_in_place,
    symlink_to_nothing,
    symlink_to_another_server,
    live_socket_renamed_over,
    dead_socket_renamed_over,
    bind_mount_of_old_inode,
    bind_mount_of_same_file,
    mounted_over_folder,
    mounted_over_parent,
    lazily_unmounted,
    all_sockets_removed,
    removed_while_daemon_down,
    hard_linked_back,
    other_link_removed,
    stopped_with_client_waiting,
    held_by_a_debugger,
    accept_loop_deadlocked,
    backlog_full,
    slow_server_falls_behind,
    workers_all_stopped,
    socket_chmod_000,
    folder_chmod_000,
    parent_chmod_000,
    socket_closed_to_its_clients,
    folder_closed_to_its_clients,
    socket_chowned,
    clients_by_group,
    killed_and_left_its_file,
    child_left_by_killed_main,
    worker_outlives_main,
    closed_and_not_removed,
    closed_and_removed_by_service,
    never_bound,
    bound_where_only_it_sees,
    abstract_socket_closed,
    orphan_keeps_the_listener,
    descriptor_passed_to_stranger,
    other_service_steals_path,
    two_services_one_path,
    one_path_by_two_names,
    killed_while_daemon_down,
    stopped_while_daemon_down,
    denied_while_daemon_down,
    stolen_while_daemon_down,
    daemon_killed_and_started,
    removed_in_clean_restart,
    listeners_churn_beside,
    inode_number_comes_again,
    reload_within_settle,
    bound_before_it_listens,
    connections_keep_the_name,
    renamed_into_place,
    bound_by_relative_name,
    on_tmpfs,
    on_overlayfs,
    on_btrfs,
    on_xfs,
    in_own_network_namespace,
    in_own_mount_namespace,
    executed_anew_with_listener_open,
    symlink_to_the_socket,
    attributes_touched,
    slow_server_keeps_up,
    clients_that_give_up,
}

/// Two at a time: a scenario mostly waits, and its daemon and servers want a processor too.
const THREADS: usize = 2;

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--table") {
        print!("{}", page(&rows()));
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    if let Err(fault) = scenarios::end_worlds_on_interrupt() {
        eprintln!("cannot watch for Ctrl-C: {fault}");
        return ExitCode::FAILURE;
    }
    let mut trials = matrix();
    trials.push(Trial::test("the_table_in_the_docs", documented));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A scenario is found by its row's name: it must be its file's.
fn assert_names(names: &[(&str, &str)]) {
    for (file, row) in names {
        assert_eq!(file, row, "the row of tests/faults/{file}.rs");
    }
}

fn documented() -> Result<(), Failed> {
    let place: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/faults.md");
    let committed = std::fs::read_to_string(&place)?;
    if committed == page(&rows()) {
        return Ok(());
    }
    Err("docs/faults.md is not what the scenarios say: run `cargo xtask faults-table`".into())
}
