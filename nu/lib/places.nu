# Where things are: a program, a service's data, its sockets.

use given.nu ["nu-complete services"]
use verbs.nu ["service check"]

# The path of a service's socket, to hand to a client.
@category services
@search-terms path connect client
@example "Where a service listens" {
    proc register {name: web, exec: ["true"], sockets: [rpc.sock]}
    service socket web rpc.sock | path basename
} --result "rpc.sock"
export def "service socket" [
    service: oneof<record, string>@"nu-complete services" # its name
    socket?: string # which socket, as it is declared (default: the first)
]: nothing -> path {
    let rows = service check $service
    let found = if $socket == null { $rows } else { $rows | where socket == $socket }
    if ($found | is-empty) {
        error make {
            msg: (if $socket == null { "no socket is declared" } else { $"no such socket: ($socket)" })
            code: "service::no_socket"
            labels: [{text: "this service", span: (metadata $service).span}]
            help: (if ($rows | is-empty) { "`service status` shows its spec" } else { $"declared: ($rows | get socket | str join ', ')" })
        }
    }
    $found | first | get path
}

# The path of a program that a service needs, or an error that says how to install it.
#
# Looked for in `--dirs`, then on PATH, then in the system's sbin folders, which a user's PATH may lack.
@category services
@search-terms which find binary package install
@example "A program on PATH" { service program sh | path basename } --result "sh"
@example "One that is missing" {
    try { service program no-such-server --package no-such } catch {|e| $e.details.code }
} --result "service::no_program"
export def "service program" [
    name: string # the program's file name
    --package (-p): string # the Debian package that brings it (default: NAME)
    --dirs (-d): list<string> = [] # folders to look in first, as globs; of several matches the newest version wins
]: nothing -> path {
    let listed = $dirs | each {|dir| glob ($dir | path join $name) } | flatten | sort --natural | reverse
    let on_path = which --all $name | where type == external | get path
    let system = [/usr/local/sbin /usr/sbin /sbin] | each {|dir| $dir | path join $name }
    let found = $listed ++ $on_path ++ $system | where {|it| which $it | is-not-empty }
    if ($found | is-empty) {
        error make {
            msg: $"program not found: ($name)"
            code: "service::no_program"
            labels: [{text: "not installed, or not on PATH", span: (metadata $name).span}]
            help: $"install it \(Debian, Ubuntu: `apt install ($package | default $name)`\), or add its folder to $env.PATH"
        }
    }
    $found | first
}

# The folder for a service's data, made when it is missing; only its owner gets in.
#
# `<root>/<name>`, where root is $env.HERO_STATE_DIR, else `/var/lib/hero` for root and
# `$XDG_STATE_HOME/hero` (`~/.local/state/hero`) for others.
@category services
@search-terms data folder directory home
@example "Where a module keeps its data" { service state-dir web | path basename } --result "web"
export def "service state-dir" [
    name: string # the service
    --user (-u): string # who owns it, when root makes it
    --reader (-r): string # a user whose group may look inside, when root makes it
]: nothing -> path {
    folder "0750" ([(state-root) $name] | path join) $user $reader
}

# The folder for a service's sockets, made when it is missing: for sockets that are declared by an absolute path.
#
# `<root>/<name>` as for sockets declared by a basename: root is $env.HERO_SOCKET_DIR, else `~/hero/var/sockets`.
# Where the default root lies in a home that `--user` cannot enter, it is the state folder's `sockets`.
@category services
@search-terms socket folder directory
@example "The folder of a service's sockets" { service socket-dir web | path basename } --result "web"
export def "service socket-dir" [
    name: string # the service
    --user (-u): string # who binds there, when root makes it
]: nothing -> path {
    let chosen = $env.HERO_SOCKET_DIR?
    let dir = folder "0755" ([($chosen | default "~/hero/var/sockets" | path expand --no-symlink) $name] | path join) $user
    if $user == null or not (is-admin) or (^runuser -u $user -- test -w $dir | complete).exit_code == 0 {
        return $dir
    }
    if $chosen != null {
        error make {
            msg: $"user ($user) cannot write in ($dir)"
            code: "service::denied"
            labels: [{text: "this service binds there", span: (metadata $user).span}]
            help: $"let others pass through $env.HERO_SOCKET_DIR and the folders above it \(`chmod o+x`\), or set it to a folder where they may"
        }
    }
    folder "0755" ([(state-root) sockets $name] | path join) $user
}

def state-root []: nothing -> path {
    let default_root = if (is-admin) {
        "/var/lib/hero"
    } else {
        $env.XDG_STATE_HOME? | default "~/.local/state" | path join hero
    }
    $env.HERO_STATE_DIR? | default $default_root | path expand --no-symlink
}

# A folder with this mode; for root, with this owner, or open to the group of this reader.
def folder [mode: string, path: path, user?: string, reader?: string]: nothing -> path {
    let owner = if not (is-admin) { [] } else {
        let user = $user | default root
        [-o $user -g (^id -gn ($reader | default $user) | str trim)]
    }
    ^install -d -m $mode ...$owner $path
    $path
}
