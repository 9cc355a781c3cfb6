# Knot DNS, an authoritative server, with its control on a Unix socket, with a configuration of its own (not the system's).
#
#     use nu/services/knot.nu
#     knot up; knot ctl status; knot restart --clean; knot down
#
# Where it listens and its zones are in `server.conf` in the state folder: written once (127.0.0.1, port 5354),
# yours from then on. `knot.conf` beside it is written anew by `install`.

use ../lib.nu *

def state []: nothing -> path { service state-dir knot }

def socket []: nothing -> path { service socket-dir knot | path join control.sock }

# What shimd is told about Knot DNS. The socket is an absolute path, since Knot takes it only from its configuration.
export def spec []: nothing -> record {
    service spec {
        name: knot
        exec: [(service program knotd --package knot) -c (state | path join knot.conf)]
        sockets: [(socket)]
    }
}

# Write the configuration. `up` and `restart` do this.
export def install []: nothing -> nothing {
    cd (state)
    if not ("server.conf" | path exists) { "server:\n  listen: 127.0.0.1@5354\n" | save server.conf }
    $"# Written by nu/services/knot.nu at each start; server.conf is the place for changes.
server:
  rundir: (state)
  user: (^id -un | str trim):(^id -gn | str trim)
database:
  storage: (state)
control:
  listen: (socket)
log:
  - target: stderr
    any: info
include: (state | path join server.conf)
" | save --force knot.conf
}

# Start Knot DNS, registering it when needed: a row once it listens at its socket, else an error.
export def up []: nothing -> table { install; service up (spec) }

# Stop Knot DNS.
export def down []: nothing -> table { service down knot }

# Restart Knot DNS with the spec and configuration as they are now.
export def restart [
    --clean (-c) # end whoever else listens on the socket, and remove a stale file, before the start
]: nothing -> table { install; service restart --clean=$clean (spec) }

# The verdict on Knot DNS's socket.
export def check [
    --fail (-f) # a verdict other than `ok` is an error
]: nothing -> table { service check --fail=$fail knot }

# Everything about Knot DNS: state, spec, instance, sockets.
export def status []: nothing -> record { service status knot }

# What Knot DNS writes, as `proc logs`: `knot logs --follow`.
export def logs [
    --lines (-n): int # so many lines of the past, the latest
    --follow (-f) # go on with new lines as they are written
    --since (-s): duration # only of so long ago until now
    --raw (-r) # the bytes as they were written
]: nothing -> any { service logs knot --lines $lines --follow=$follow --since $since --raw=$raw }

# Ask Knot DNS with knotc, as in `knot ctl zone-status`.
export def --wrapped ctl [...args: string]: nothing -> any {
    ^(service program knotc --package knot) -s (service socket knot) ...$args
}
