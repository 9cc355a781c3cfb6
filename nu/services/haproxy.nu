# HAProxy with its front end and its administration on Unix sockets, with a configuration of its own (not the system's).
#
#     use nu/services/haproxy.nu
#     haproxy up; haproxy ask "show info"; haproxy restart --clean; haproxy down
#
# What it serves is in `server.cfg` in the state folder: written once, yours from then on. It finds the
# front end's path as `${FRONT_SOCKET}`. `base.cfg` beside it is written anew by `install`.

use ../lib.nu *

def state []: nothing -> path { service state-dir haproxy }

# What shimd is told about HAProxy.
export def spec []: nothing -> record {
    service spec {
        name: haproxy
        exec: [(service program haproxy) -db -f (state | path join base.cfg) -f (state | path join server.cfg)]
        env: {FRONT_SOCKET: "{socket:front.sock}", ADMIN_SOCKET: "{socket:admin.sock}"}
        sockets: [front.sock admin.sock]
    }
}

# Write the configuration. `up` and `restart` do this.
export def install []: nothing -> nothing {
    cd (state)
    '# Written by nu/services/haproxy.nu at each start; server.cfg is the place for changes.
global
  stats socket "${ADMIN_SOCKET}" mode 600 level admin
  log stdout format raw local0
defaults
  mode http
  log global
  timeout connect 5s
  timeout client 1m
  timeout server 1m
' | save --force base.cfg
    if not ("server.cfg" | path exists) {
        'frontend front
  bind "unix@${FRONT_SOCKET}" mode 666
  http-request return status 200 content-type text/plain string ok
' | save server.cfg
    }
}

# Start HAProxy, registering it when needed: a row once it listens at both sockets, else an error.
export def up []: nothing -> table { install; service up (spec) }

# Stop HAProxy.
export def down []: nothing -> table { service down haproxy }

# Restart HAProxy with the spec and configuration as they are now.
export def restart [
    --clean (-c) # end whoever else listens on the sockets, and remove a stale file, before the start
]: nothing -> table { install; service restart --clean=$clean (spec) }

# The verdicts on HAProxy's sockets.
export def check [
    --fail (-f) # a verdict other than `ok` is an error
]: nothing -> table { service check --fail=$fail haproxy }

# Everything about HAProxy: state, spec, instance, sockets.
export def status []: nothing -> record { service status haproxy }

# What HAProxy writes, as `proc logs`: `haproxy logs --follow`.
export def logs [
    --lines (-n): int # so many lines of the past, the latest
    --follow (-f) # go on with new lines as they are written
    --since (-s): duration # only of so long ago until now
    --raw (-r) # the bytes as they were written
]: nothing -> any { service logs haproxy --lines $lines --follow=$follow --since $since --raw=$raw }

# Ask HAProxy's administration, as in `haproxy ask "show info"` (with socat).
export def ask [
    command: string # a command of its Runtime API
]: nothing -> string {
    $"($command)\n" | ^(service program socat) -t5 - $"UNIX-CONNECT:(service socket haproxy admin.sock)"
}
