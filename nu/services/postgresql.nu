# PostgreSQL on a Unix socket, without a TCP port, with a cluster of its own (not the system's).
#
#     use nu/services/postgresql.nu
#     postgresql up; postgresql psql -c 'select 41 + 1'; postgresql restart --clean; postgresql down
#
# It refuses to run as root: then it runs as the user postgres. Clients are known by their user (`peer`).

use ../lib.nu *

# The account it runs as, where that is not the caller's own.
def account []: nothing -> oneof<string, nothing> { if (is-admin) { "postgres" } }

def state []: nothing -> path { service state-dir postgresql --user (account) }

# The socket's folder: absolute, since the default one may lie in a home that postgres cannot enter.
def socket-dir []: nothing -> path { service socket-dir postgresql --user (account) }

# One of its programs; once there is a cluster, of the cluster's version.
def program [name: string]: nothing -> path {
    let version = try { open --raw (state | path join data PG_VERSION) | str trim } catch { "*" }
    service program $name --package postgresql --dirs [$"/usr/lib/postgresql/($version)/bin"]
}

# Run a command as the account.
def --wrapped as-account [...argv: string]: nothing -> any {
    cd (state)
    if (account) == null { run-external ...$argv } else { ^runuser -u (account) -- ...$argv }
}

# What shimd is told about PostgreSQL.
export def spec []: nothing -> record {
    service spec {
        name: postgresql
        exec: [
            (program postgres)
            -D (state | path join data) -k "{socket_dir}" -p 5432 -c listen_addresses=
        ]
        sockets: [(socket-dir | path join .s.PGSQL.5432)]
        ready: {timeout: 1min} # after a crash it replays its log first
        stop: {signal: SIGINT, timeout: 1min} # SIGTERM would wait for the last client to leave
    } --user (account)
}

# Make the database cluster, once. `up` and `restart` do this.
export def install []: nothing -> nothing {
    cd (state)
    if ("data" | path exists) { return }
    rm --recursive --force data.new # of an attempt that was cut short
    let made = as-account (program initdb) -D data.new --auth peer --encoding UTF8 --no-locale | complete
    if $made.exit_code != 0 {
        error make --unspanned {msg: "initdb could not make a database cluster", code: "postgresql::initdb", help: $made.stderr}
    }
    mv data.new data
}

# Start PostgreSQL, registering it when needed: a row once it listens at its socket, else an error.
export def up []: nothing -> table { install; service up (spec) }

# Stop PostgreSQL; open transactions are rolled back.
export def down []: nothing -> table { service down postgresql }

# Restart PostgreSQL with the spec as it is now.
export def restart [
    --clean (-c) # end whoever else listens on the socket, and remove a stale file, before the start
]: nothing -> table { install; service restart --clean=$clean (spec) }

# The verdict on PostgreSQL's socket.
export def check [
    --fail (-f) # a verdict other than `ok` is an error
]: nothing -> table { service check --fail=$fail postgresql }

# Everything about PostgreSQL: state, spec, instance, sockets.
export def status []: nothing -> record { service status postgresql }

# What PostgreSQL writes, as `proc logs`: `postgresql logs --follow`.
export def logs [
    --lines (-n): int # so many lines of the past, the latest
    --follow (-f) # go on with new lines as they are written
    --since (-s): duration # only of so long ago until now
    --raw (-r) # the bytes as they were written
]: nothing -> any { service logs postgresql --lines $lines --follow=$follow --since $since --raw=$raw }

# Ask PostgreSQL something as its superuser, as in `postgresql psql -c 'select 41 + 1'`.
export def --wrapped psql [...args: string]: nothing -> any {
    as-account (program psql) -h (service socket postgresql | path dirname) -d postgres ...$args
}
