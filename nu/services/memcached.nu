# Memcached on a Unix socket, without a TCP port.
#
#     use nu/services/memcached.nu
#     memcached up; memcached ask version; memcached restart --clean; memcached down
#
# It refuses to run as root: then it runs as the user memcache.

use ../lib.nu *

# The account it runs as, where that is not the caller's own.
def account []: nothing -> oneof<string, nothing> { if (is-admin) { "memcache" } }

# What shimd is told about Memcached. The socket is absolute, since the default folder may lie in a home that memcache cannot enter.
export def spec []: nothing -> record {
    let socket = service socket-dir memcached --user (account) | path join memcached.sock
    service spec {
        name: memcached
        exec: [(service program memcached) -s $socket -a 0770 -m 64]
        sockets: [$socket]
    } --user (account)
}

# Start Memcached, registering it when needed: a row once it listens at its socket, else an error.
export def up []: nothing -> table { service up (spec) }

# Stop Memcached; what it holds is gone.
export def down []: nothing -> table { service down memcached }

# Restart Memcached with the spec as it is now.
export def restart [
    --clean (-c) # end whoever else listens on the socket, and remove a stale file, before the start
]: nothing -> table { service restart --clean=$clean (spec) }

# The verdict on Memcached's socket.
export def check [
    --fail (-f) # a verdict other than `ok` is an error
]: nothing -> table { service check --fail=$fail memcached }

# Everything about Memcached: state, spec, instance, sockets.
export def status []: nothing -> record { service status memcached }

# What Memcached writes, as `proc logs`: `memcached logs --follow`.
export def logs [
    --lines (-n): int # so many lines of the past, the latest
    --follow (-f) # go on with new lines as they are written
    --since (-s): duration # only of so long ago until now
    --raw (-r) # the bytes as they were written
]: nothing -> any { service logs memcached --lines $lines --follow=$follow --since $since --raw=$raw }

# Ask Memcached a line of its protocol, as in `memcached ask stats` (with socat).
export def ask [
    line: string # the command
]: nothing -> string {
    $"($line)\r\nquit\r\n" | ^(service program socat) -t2 - $"UNIX-CONNECT:(service socket memcached)"
}
