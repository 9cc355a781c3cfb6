# nginx on a Unix socket, with a configuration of its own (not the system's).
#
#     use nu/services/nginx.nu
#     nginx up; nginx fetch /; nginx restart --clean; nginx down
#
# What it serves is in `server.conf` in the state folder: written once, yours from then on.
# `nginx.conf` beside it (socket, process and log set-up) is written anew by `install`.

use ../lib.nu *

# The account of nginx's workers, when root runs it.
def worker []: nothing -> string {
    [www-data nginx http nobody] | where {|user| (^id $user | complete).exit_code == 0 } | first
}

def state []: nothing -> path { service state-dir nginx --reader (worker) }

def socket []: nothing -> path { service socket-dir nginx | path join nginx.sock }

# What shimd is told about nginx. The socket is an absolute path, since nginx takes it only from its configuration.
export def spec []: nothing -> record {
    service spec {
        name: nginx
        exec: [
            (service program nginx --package nginx-light)
            -p (state) -c nginx.conf -e stderr -g "daemon off;"
        ]
        sockets: [(socket)]
    }
}

# Write the configuration. `up` and `restart` do this.
export def install []: nothing -> nothing {
    cd (state)
    let user = if (is-admin) { $"user (worker) (^id -gn (worker) | str trim);" } else { "" }
    let types = if ("/etc/nginx/mime.types" | path exists) { "include /etc/nginx/mime.types;" } else { "" }
    let temporary = [client_body proxy fastcgi uwsgi scgi] | each {|kind| $"($kind)_temp_path tmp_($kind);" } | str join " "
    $"# Written by nu/services/nginx.nu at each start; server.conf is the place for changes.
($user)
pid nginx.pid;
error_log stderr;
events {}
http {
  access_log /dev/stdout;
  default_type text/plain;
  ($types)
  ($temporary)
  server {
    listen unix:(socket);
    include server.conf;
  }
}
" | save --force nginx.conf
    if not ("server.conf" | path exists) {
        'location / { return 200 "ok\n"; }' + "\n" | save server.conf
    }
}

# Start nginx, registering it when needed: a row once it listens at its socket, else an error.
export def up []: nothing -> table { install; service up (spec) }

# Stop nginx.
export def down []: nothing -> table { service down nginx }

# Restart nginx with the spec and configuration as they are now.
export def restart [
    --clean (-c) # end whoever else listens on the socket, and remove a stale file, before the start
]: nothing -> table { install; service restart --clean=$clean (spec) }

# The verdict on nginx's socket.
export def check [
    --fail (-f) # a verdict other than `ok` is an error
]: nothing -> table { service check --fail=$fail nginx }

# Everything about nginx: state, spec, instance, sockets.
export def status []: nothing -> record { service status nginx }

# What nginx writes, as `proc logs`: `nginx logs --follow`.
export def logs [
    --lines (-n): int # so many lines of the past, the latest
    --follow (-f) # go on with new lines as they are written
    --since (-s): duration # only of so long ago until now
    --raw (-r) # the bytes as they were written
]: nothing -> any { service logs nginx --lines $lines --follow=$follow --since $since --raw=$raw }

# Ask nginx for a page, as in `nginx fetch /`.
export def fetch [
    path: string = "/" # the page
]: nothing -> any { http get --unix-socket (service socket nginx) $"http://localhost($path)" }
