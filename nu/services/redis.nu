# Redis on a Unix socket, without a TCP port.
#
#     use nu/services/redis.nu
#     redis up; redis check; redis restart --clean; redis down

use ../lib.nu *

# What shimd is told about Redis.
export def spec []: nothing -> record {
    service spec {
        name: redis
        exec: [
            (service program redis-server --package redis-server)
            --port 0 --unixsocket "{socket:redis.sock}" --unixsocketperm 770
            --dir (service state-dir redis) --daemonize no
        ]
        sockets: [redis.sock]
        stop: {timeout: 1min} # it saves its data first
    }
}

# Start Redis, registering it when needed: a row once it answers at its socket, else an error.
export def up []: nothing -> table { service up (spec) }

# Stop Redis.
export def down []: nothing -> table { service down redis }

# Restart Redis with the spec as it is now.
export def restart [
    --clean (-c) # end whoever else listens on the socket, and remove a stale file, before the start
]: nothing -> table { service restart --clean=$clean (spec) }

# The verdict on Redis's socket.
export def check [
    --fail (-f) # a verdict other than `ok` is an error
]: nothing -> table { service check --fail=$fail redis }

# Everything about Redis: state, spec, instance, sockets.
export def status []: nothing -> record { service status redis }

# What Redis writes, as `proc logs`: `redis logs --follow`.
export def logs [
    --lines (-n): int # so many lines of the past, the latest
    --follow (-f) # go on with new lines as they are written
    --since (-s): duration # only of so long ago until now
    --raw (-r) # the bytes as they were written
]: nothing -> any { service logs redis --lines $lines --follow=$follow --since $since --raw=$raw }

# Ask Redis something with redis-cli, as in `redis cli ping`.
export def --wrapped cli [...args: string]: nothing -> any {
    ^(service program redis-cli --package redis-tools) -s (service socket redis) ...$args
}
