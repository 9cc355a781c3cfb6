//! The scenarios: what users live through, each in a file named after it, with real processes and sockets.
//!
//! `cargo xtask test` prepares the machine and runs them; `cargo test -p scenarios NAME` runs some. What cannot run
//! here is reported as ignored, with the reason.

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

mod activate_crash_loses_no_waiting_connection;
mod activate_hand_over;
mod activate_outlives_shimd;
mod activate_real_servers;
mod activate_restarts_no_client_refused;
mod activate_stop_removes;
mod adopted_ends;
mod after_boot;
mod answered_is_in_the_history;
mod bad_input_exec;
mod bad_input_paths;
mod bad_input_pipeline;
mod bad_input_specs;
mod bad_input_wire;
mod child_keeps_listener;
mod colours;
mod completions;
mod config;
mod control_socket;
mod daemon_missing;
mod damaged_store;
mod dead_main_is_not_named;
mod depends_on;
mod disk_fails_under_the_home;
mod documents;
mod dropped_sockets_leave_nothing;
mod errors_catalogue;
mod fixture;
mod foreign_listener_kinds;
mod foreign_listener_not_stolen;
mod full_disk;
mod gapless_changes_the_mode;
mod gapless_of_a_wedged_one;
mod guarded_from_cleaners;
mod guide;
mod help_examples;
mod help_names_the_next_command;
mod hero_style_spec;
mod history;
mod home_goes_while_shimd_runs;
mod home_that_cannot_be_used;
mod install;
mod instance_surroundings;
mod kill_other_ends_holder;
mod late_report_is_over;
mod late_unlink_by_old_instance;
mod listens_after_a_slow_reload;
mod load_on_real_servers;
mod logs;
mod logs_followed;
mod man;
mod notify_and_marker;
mod nu_completions;
mod nu_errors;
mod nu_groups;
mod nu_install;
mod nu_logs;
mod nu_modules;
mod nu_moving;
mod nu_new;
mod nu_overview;
mod nu_patterns;
mod nu_spec;
mod null_flags;
mod one_daemon_per_home;
mod ordinary_user;
mod own_socket_put_back;
mod package;
mod plugin_starts_daemon;
mod proc_heal_bridges_a_ghost;
mod progress;
mod publish;
mod publish_gapless;
mod publish_reload;
mod random_removals_never_green;
mod recorded_early;
mod recovery_and_names;
mod recovery_is_told;
mod relink_and_the_daemon;
mod relink_backs_off;
mod relink_falls_to_restart;
mod relink_of_closed_listener;
mod relink_on_bad_disks;
mod relink_puts_it_back;
mod relink_spares_a_reload;
mod replaced_in_place;
mod resources_run_out;
mod restart_many_disturbed;
mod restart_many_in_order;
mod restart_many_one_fails;
mod restart_policy;
mod restart_that_cannot_come_up;
mod servers;
mod sigkill_daemon_adopts;
mod soak;
mod stop_many_in_order;
mod stop_takes_the_whole_tree;
mod stop_timeout_kills;
mod streams_at_the_prompt;
mod top;
mod torture;
mod unlink_under_listener;
mod values;
mod verdict_history;
mod without_events;
mod wrap_beneath_supervisors;
mod wrap_ends_what_is_deep;
mod wrap_foreign_refused;
mod wrap_forwards_signals_and_status;
mod wrap_heals;
mod wrap_killed_takes_service;
mod wrap_notify;

/// Two at a time: a scenario mostly waits, and its daemon and servers want a processor too.
const THREADS: usize = 2;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    if let Err(fault) = scenarios::end_worlds_on_interrupt() {
        eprintln!("cannot watch for Ctrl-C: {fault}");
        return ExitCode::FAILURE;
    }
    let trials: Vec<Trial> = [
        disk_fails_under_the_home::trials(),
        dropped_sockets_leave_nothing::trials(),
        documents::trials(),
        errors_catalogue::trials(),
        fixture::trials(),
        servers::trials(),
        nu_completions::trials(),
        nu_errors::trials(),
        nu_groups::trials(),
        nu_install::trials(),
        nu_logs::trials(),
        nu_modules::trials(),
        nu_moving::trials(),
        nu_new::trials(),
        nu_overview::trials(),
        nu_patterns::trials(),
        nu_spec::trials(),
        help_examples::trials(),
        help_names_the_next_command::trials(),
        hero_style_spec::trials(),
        home_goes_while_shimd_runs::trials(),
        home_that_cannot_be_used::trials(),
        unlink_under_listener::trials(),
        values::trials(),
        verdict_history::trials(),
        late_unlink_by_old_instance::trials(),
        late_report_is_over::trials(),
        listens_after_a_slow_reload::trials(),
        child_keeps_listener::trials(),
        kill_other_ends_holder::trials(),
        foreign_listener_not_stolen::trials(),
        foreign_listener_kinds::trials(),
        soak::trials(),
        stop_takes_the_whole_tree::trials(),
        stop_timeout_kills::trials(),
        streams_at_the_prompt::trials(),
        install::trials(),
        instance_surroundings::trials(),
        load_on_real_servers::trials(),
        logs::trials(),
        logs_followed::trials(),
        man::trials(),
        restart_policy::trials(),
        restart_that_cannot_come_up::trials(),
        restart_many_in_order::trials(),
        restart_many_one_fails::trials(),
        stop_many_in_order::trials(),
        resources_run_out::trials(),
        restart_many_disturbed::trials(),
        progress::trials(),
        publish::trials(),
        publish_gapless::trials(),
        publish_reload::trials(),
        dead_main_is_not_named::trials(),
        depends_on::trials(),
        notify_and_marker::trials(),
        sigkill_daemon_adopts::trials(),
        proc_heal_bridges_a_ghost::trials(),
        random_removals_never_green::trials(),
        recorded_early::trials(),
        recovery_and_names::trials(),
        recovery_is_told::trials(),
        adopted_ends::trials(),
        top::trials(),
        torture::trials(),
        replaced_in_place::trials(),
        relink_of_closed_listener::trials(),
        relink_spares_a_reload::trials(),
        relink_puts_it_back::trials(),
        relink_falls_to_restart::trials(),
        relink_backs_off::trials(),
        relink_on_bad_disks::trials(),
        relink_and_the_daemon::trials(),
        activate_hand_over::trials(),
        activate_crash_loses_no_waiting_connection::trials(),
        activate_restarts_no_client_refused::trials(),
        activate_outlives_shimd::trials(),
        activate_stop_removes::trials(),
        activate_real_servers::trials(),
        plugin_starts_daemon::trials(),
        daemon_missing::trials(),
        one_daemon_per_home::trials(),
        null_flags::trials(),
        ordinary_user::trials(),
        colours::trials(),
        completions::trials(),
        config::trials(),
        control_socket::trials(),
        after_boot::trials(),
        damaged_store::trials(),
        full_disk::trials(),
        gapless_changes_the_mode::trials(),
        gapless_of_a_wedged_one::trials(),
        guarded_from_cleaners::trials(),
        guide::trials(),
        history::trials(),
        own_socket_put_back::trials(),
        package::trials(),
        without_events::trials(),
        bad_input_specs::trials(),
        answered_is_in_the_history::trials(),
        bad_input_exec::trials(),
        bad_input_paths::trials(),
        bad_input_pipeline::trials(),
        bad_input_wire::trials(),
        wrap_heals::trials(),
        wrap_ends_what_is_deep::trials(),
        wrap_forwards_signals_and_status::trials(),
        wrap_killed_takes_service::trials(),
        wrap_foreign_refused::trials(),
        wrap_notify::trials(),
        wrap_beneath_supervisors::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}
