# rsyslog on a Unix datagram socket of its own (not the system's /dev/log).
#
#     use nu/services/rsyslog.nu
#     rsyslog up; rsyslog log hello; rsyslog messages; rsyslog restart --clean; rsyslog down
#
# What it does with messages is in `server.conf` in the state folder: written once (into the file `messages`
# there), yours from then on. `rsyslog.conf` beside it is written anew by `install`.

use ../lib.nu *

def state []: nothing -> path { service state-dir rsyslog }

def socket []: nothing -> path { service socket-dir rsyslog | path join log.sock }

# What shimd is told about rsyslog. The socket is an absolute path, since rsyslog takes it only from its configuration.
export def spec []: nothing -> record {
    service spec {
        name: rsyslog
        exec: [(service program rsyslogd --package rsyslog) -n -i NONE -f (state | path join rsyslog.conf)]
        sockets: [(service socket-spec (socket) --type dgram)]
    }
}

# Write the configuration. `up` and `restart` do this.
export def install []: nothing -> nothing {
    cd (state)
    if not ("server.conf" | path exists) {
        $"action\(type=\"omfile\" file=\"(state | path join messages)\")\n" | save server.conf
    }
    $"# Written by nu/services/rsyslog.nu at each start; server.conf is the place for changes.
global\(workDirectory=\"(state)\")
module\(load=\"imuxsock\" SysSock.Use=\"off\")
input\(type=\"imuxsock\" Socket=\"(socket)\" CreatePath=\"off\")
include\(file=\"(state | path join server.conf)\")
" | save --force rsyslog.conf
}

# Start rsyslog, registering it when needed: a row once it listens at its socket, else an error.
export def up []: nothing -> table { install; service up (spec) }

# Stop rsyslog.
export def down []: nothing -> table { service down rsyslog }

# Restart rsyslog with the spec and configuration as they are now.
export def restart [
    --clean (-c) # end whoever else listens on the socket, and remove a stale file, before the start
]: nothing -> table { install; service restart --clean=$clean (spec) }

# The verdict on rsyslog's socket.
export def check [
    --fail (-f) # a verdict other than `ok` is an error
]: nothing -> table { service check --fail=$fail rsyslog }

# Everything about rsyslog: state, spec, instance, sockets.
export def status []: nothing -> record { service status rsyslog }

# What rsyslog writes, as `proc logs`: `rsyslog logs --follow`.
export def logs [
    --lines (-n): int # so many lines of the past, the latest
    --follow (-f) # go on with new lines as they are written
    --since (-s): duration # only of so long ago until now
    --raw (-r) # the bytes as they were written
]: nothing -> any { service logs rsyslog --lines $lines --follow=$follow --since $since --raw=$raw }

# Log a line through rsyslog's socket, with logger.
export def log [
    text: string # the line
]: nothing -> nothing {
    ^(service program logger --package bsdutils) --socket (service socket rsyslog) --udp -- $text
}

# The lines that rsyslog wrote, as `server.conf` was at first.
export def messages []: nothing -> list<string> {
    let file = state | path join messages
    if ($file | path exists) { open --raw $file | lines } else { [] }
}
