# The verbs: what is asked of a service, through the plugin's commands.

use given.nu *

# Register specs and start their services: each is up when all its sockets are `ok`.
#
# A service that already runs goes on as it is; `service restart` gives it a changed spec.
# Dependencies (`depends_on`) come up first, in any order of the arguments.
@category services
@search-terms start run register launch
@example "Run a program that has no socket" {
    service up {name: nap, exec: [tail -f /dev/null]} | get 0.status
} --result "running"
@example "A service that does not come up is an error" {
    try { service up {name: dud, exec: ["false"], sockets: [rpc.sock], restart: {policy: never}} } catch {|e| $e.details.code }
} --result "proc::failed"
@example "Several at once, from a list of specs" {
    [{name: one, exec: [tail -f /dev/null]} {name: two, exec: [tail -f /dev/null], depends_on: [one]}] | service up | get name | sort
} --result [one two]
export def "service up" [
    ...services: oneof<list, record, string>@"nu-complete services" # specs, or names of registered services
    --quiet (-q) # no line of progress on a terminal
]: any -> table {
    let input = $in
    let span = (metadata $services).span
    let names = $input | settled $services $span
    labelled $span { $names | proc start --fail --quiet=$quiet }
}

# Stop services, those that depend on others before these; they stay registered.
@category services
@search-terms stop halt
@example "Stop a service" {
    service up {name: nap, exec: [tail -f /dev/null]}; service down nap | get 0.status
} --result "inactive"
export def "service down" [
    ...services: oneof<list, record, string>@"nu-complete services" # names, or the specs that were registered
    --quiet (-q) # no line of progress on a terminal
]: any -> table {
    let input = $in
    let span = (metadata $services).span
    let names = $input | named $services $span
    labelled $span { $names | proc stop --fail --quiet=$quiet }
}

# Restart services; a spec among the arguments is registered first, so a changed one takes effect.
@category services
@search-terms restart reload clean
@example "Stop the whole process tree, clear the way, start, and see every socket ok" {
    service restart --clean {name: nap, exec: [tail -f /dev/null]} | get 0.outcome
} --result "restarted"
export def "service restart" [
    ...services: oneof<list, record, string>@"nu-complete services" # specs, or names of registered services
    --clean (-c) # end whoever else listens on the sockets, and remove stale files, before the start
    --gapless (-g) # no client sees a refusal or a missing file: for sockets of the modes `publish` and `activate`
    --quiet (-q) # no line of progress on a terminal
]: any -> table {
    let input = $in
    let span = (metadata $services).span
    let names = $input | settled $services $span
    labelled $span { $names | proc restart --clean=$clean --gapless=$gapless --fail --quiet=$quiet }
}

# Compare the sockets of services with what the kernel has: one row a socket, with its verdict.
#
# Nothing is changed. Without a service: all of them.
@category services
@search-terms socket verdict dangling health
@example "No row is a socket that clients cannot reach" {
    service up {name: nap, exec: [tail -f /dev/null]}; service check nap | where verdict != ok
} --result []
export def "service check" [
    ...services: oneof<list, record, string>@"nu-complete services" # names, or the specs that were registered
    --fail (-f) # a verdict other than `ok` is an error
]: any -> table {
    let input = $in
    let span = (metadata $services).span
    let names = $input | subjects $services $span | get --optional name
    labelled $span { $names | proc socket-check --fail=$fail }
}

# Everything about a service: its state, its spec, its instance and its sockets.
#
# One service gives a record; several, a list or rows give a table.
@category services
@search-terms state health
@example "The spec as it was registered" {
    service up {name: nap, exec: [tail -f /dev/null], owner: ops}; service status nap | get spec.owner
} --result "ops"
@example "Of several" {
    [{name: one, exec: [tail -f /dev/null]} {name: two, exec: [tail -f /dev/null]}] | service up | service status | get instance.generation
} --result [1 1]
export def "service status" [
    ...services: oneof<list, record, string>@"nu-complete services" # names, or the specs that were registered
]: any -> oneof<record, table> {
    let input = $in
    let span = (metadata $services).span
    let names = $input | named $services $span
    let kind = (if ($services | is-empty) { $input } else if ($services | length) == 1 { $services.0 } else { $services }) | describe --detailed | get type
    if $kind not-in [list table] { return (labelled $span { proc status $names.0 }) }
    mut rows = []
    for name in $names { $rows ++= [(labelled $span { proc status $name })] } # no `each`: it wraps the errors of its closure
    $rows
}

# What a service writes to its standard output and standard error.
#
# Without --lines and --since: the last 100 lines. With --follow it goes on, over restarts of the
# service, until Ctrl-C or until its reader has enough; on a terminal `--follow --raw` shows each line at once.
@category services
@search-terms output stdout stderr tail journal
@example "The last line" {
    service up {name: hi, exec: [sh -c "echo one; echo two; exec tail -f /dev/null"]}
    service logs hi --follow | first 2 | get line | last
} --result "two"
export def "service logs" [
    service?: oneof<record, string>@"nu-complete services" # its name, or the spec that was registered
    --lines (-n): int # so many lines of the past, the latest
    --follow (-f) # go on with new lines as they are written
    --since (-s): duration # only of so long ago until now
    --raw (-r) # the bytes as they were written
]: any -> oneof<table, string, binary> {
    let input = $in
    let span = (metadata $service).span
    let names = $input | named ([$service] | compact) $span
    if ($names | length) != 1 { bad-input $"the logs of one service, not of ($names | length)" $span "name one, or take one row: `| first | service logs`" }
    let name = $names.0
    labelled $span { proc status $name | ignore } # `try` would collect the stream below: what can be wrong with the name is told here
    proc logs $name --follow=$follow --raw=$raw --since $since --lines $lines
}

# Stop services and forget them: they are no longer registered. Their logs and data stay.
@category services
@search-terms unregister delete forget uninstall
@example "Stop a service, and forget it" {
    service up {name: nap, exec: [tail -f /dev/null]}; service remove nap | get 0.change
} --result "deleted"
export def "service remove" [
    ...services: oneof<list, record, string>@"nu-complete services" # names, or the specs that were registered
    --quiet (-q) # no line of progress on a terminal
]: any -> table {
    let input = $in
    let span = (metadata $services).span
    let names = $input | named $services $span
    labelled $span { $names | proc unregister --quiet=$quiet }
}
