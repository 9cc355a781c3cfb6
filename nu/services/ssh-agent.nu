# ssh-agent, which keeps keys for ssh, on a Unix socket that stays the same over restarts.
#
#     use nu/services/ssh-agent.nu
#     ssh-agent up; ssh-agent add -l; ssh-agent restart --clean; ssh-agent down
#     $env.SSH_AUTH_SOCK = (ssh-agent check | get 0.path)    # for ssh in this shell
#
# It lets nobody but root see its open files. The verdict of a shimd without root may be `unknown`: it listens, and
# whose the socket is cannot be told.

use ../lib.nu *

# What shimd is told about ssh-agent.
export def spec []: nothing -> record {
    service spec {
        name: ssh-agent
        exec: [(service program ssh-agent --package openssh-client) -D -a "{socket:agent.sock}"]
        sockets: [agent.sock]
    }
}

# Start ssh-agent, registering it when needed: a row once it listens at its socket, else an error.
export def up []: nothing -> table { service up (spec) }

# Stop ssh-agent; the keys that it holds are forgotten.
export def down []: nothing -> table { service down ssh-agent }

# Restart ssh-agent, without the keys that it holds, with the spec as it is now.
export def restart [
    --clean (-c) # end whoever else listens on the socket, and remove a stale file, before the start
]: nothing -> table { service restart --clean=$clean (spec) }

# The verdict on ssh-agent's socket.
export def check [
    --fail (-f) # a verdict other than `ok` is an error
]: nothing -> table { service check --fail=$fail ssh-agent }

# Everything about ssh-agent: state, spec, instance, sockets.
export def status []: nothing -> record { service status ssh-agent }

# What ssh-agent writes, as `proc logs`: `ssh-agent logs --follow`.
export def logs [
    --lines (-n): int # so many lines of the past, the latest
    --follow (-f) # go on with new lines as they are written
    --since (-s): duration # only of so long ago until now
    --raw (-r) # the bytes as they were written
]: nothing -> any { service logs ssh-agent --lines $lines --follow=$follow --since $since --raw=$raw }

# Ask ssh-agent with ssh-add, as in `ssh-agent add -l`, `ssh-agent add ~/.ssh/id_ed25519`.
export def --wrapped add [...args: string]: nothing -> any {
    with-env {SSH_AUTH_SOCK: (service socket ssh-agent)} { ^(service program ssh-add --package openssh-client) ...$args }
}
