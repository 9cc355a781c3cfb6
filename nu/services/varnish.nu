# Varnish on a Unix socket, without a TCP port.
#
#     use nu/services/varnish.nu
#     varnish up; varnish adm status; varnish restart --clean; varnish down
#
# What it caches is in `default.vcl` in the state folder: written once, without a backend, yours from then on.

use ../lib.nu *

def state []: nothing -> path { service state-dir varnish }

# What shimd is told about Varnish.
export def spec []: nothing -> record {
    service spec {
        name: varnish
        exec: [
            (service program varnishd --package varnish)
            -F -j none -n (state | path join work) -f (state | path join default.vcl)
            -a "{socket:varnish.sock}" -s "default,64m"
        ]
        sockets: [varnish.sock]
        ready: {timeout: 1min} # it compiles its configuration first
    }
}

# Write the first configuration, once. `up` and `restart` do this.
export def install []: nothing -> nothing {
    cd (state)
    if not ("default.vcl" | path exists) { "vcl 4.1;\nbackend default none;\n" | save default.vcl }
}

# Start Varnish, registering it when needed: a row once it listens at its socket, else an error.
export def up []: nothing -> table { install; service up (spec) }

# Stop Varnish; what it holds is gone.
export def down []: nothing -> table { service down varnish }

# Restart Varnish with the spec and configuration as they are now.
export def restart [
    --clean (-c) # end whoever else listens on the socket, and remove a stale file, before the start
]: nothing -> table { install; service restart --clean=$clean (spec) }

# The verdict on Varnish's socket.
export def check [
    --fail (-f) # a verdict other than `ok` is an error
]: nothing -> table { service check --fail=$fail varnish }

# Everything about Varnish: state, spec, instance, sockets.
export def status []: nothing -> record { service status varnish }

# What Varnish writes, as `proc logs`: `varnish logs --follow`.
export def logs [
    --lines (-n): int # so many lines of the past, the latest
    --follow (-f) # go on with new lines as they are written
    --since (-s): duration # only of so long ago until now
    --raw (-r) # the bytes as they were written
]: nothing -> any { service logs varnish --lines $lines --follow=$follow --since $since --raw=$raw }

# Ask Varnish with varnishadm, as in `varnish adm vcl.list`.
export def --wrapped adm [...args: string]: nothing -> any {
    ^(service program varnishadm --package varnish) -n (state | path join work) ...$args
}
