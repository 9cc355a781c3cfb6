# Unbound, a DNS resolver, with its control on a Unix socket, with a configuration of its own (not the system's).
#
#     use nu/services/unbound.nu
#     unbound up; unbound control status; unbound restart --clean; unbound down
#
# Where and whom it answers is in `server.conf` in the state folder: written once (127.0.0.1, port 5335),
# yours from then on. `unbound.conf` beside it is written anew by `install`.

use ../lib.nu *

# The account that it becomes, when root starts it.
def account []: nothing -> string { if (is-admin) { "unbound" } else { "" } }

def state []: nothing -> path { service state-dir unbound --reader (if (is-admin) { account }) }

def socket []: nothing -> path { service socket-dir unbound | path join control.sock }

# What shimd is told about Unbound. The socket is an absolute path, since Unbound takes it only from its configuration.
export def spec []: nothing -> record {
    service spec {
        name: unbound
        exec: [(service program unbound) -d -c (state | path join unbound.conf)]
        sockets: [(socket)]
    }
}

# Write the configuration. `up` and `restart` do this.
export def install []: nothing -> nothing {
    cd (state)
    if not ("server.conf" | path exists) {
        "interface: 127.0.0.1\nport: 5335\naccess-control: 127.0.0.0/8 allow\n" | save server.conf
    }
    $"# Written by nu/services/unbound.nu at each start; server.conf is the place for changes.
server:
  do-daemonize: no
  use-syslog: no
  logfile: \"\"
  username: \"(account)\"
  chroot: \"\"
  directory: \"(state)\"
  pidfile: \"\"
  include: \"(state | path join server.conf)\"
remote-control:
  control-enable: yes
  control-interface: \"(socket)\"
  control-use-cert: no
" | save --force unbound.conf
}

# Start Unbound, registering it when needed: a row once it listens at its socket, else an error.
export def up []: nothing -> table { install; service up (spec) }

# Stop Unbound.
export def down []: nothing -> table { service down unbound }

# Restart Unbound with the spec and configuration as they are now.
export def restart [
    --clean (-c) # end whoever else listens on the socket, and remove a stale file, before the start
]: nothing -> table { install; service restart --clean=$clean (spec) }

# The verdict on Unbound's socket.
export def check [
    --fail (-f) # a verdict other than `ok` is an error
]: nothing -> table { service check --fail=$fail unbound }

# Everything about Unbound: state, spec, instance, sockets.
export def status []: nothing -> record { service status unbound }

# What Unbound writes, as `proc logs`: `unbound logs --follow`.
export def logs [
    --lines (-n): int # so many lines of the past, the latest
    --follow (-f) # go on with new lines as they are written
    --since (-s): duration # only of so long ago until now
    --raw (-r) # the bytes as they were written
]: nothing -> any { service logs unbound --lines $lines --follow=$follow --since $since --raw=$raw }

# Ask Unbound with unbound-control, as in `unbound control stats_noreset`.
export def --wrapped control [...args: string]: nothing -> any {
    ^(service program unbound-control --package unbound) -c (state | path join unbound.conf) ...$args
}
