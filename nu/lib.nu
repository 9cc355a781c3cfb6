# What service modules are written with: a spec, and the verbs that work on it.
#
#     use nu/lib.nu *
#     service up {name: nap, exec: [tail -f /dev/null]}
#
# - A verb takes specs, names, and rows with a `name` or `service` column, as arguments or as input.
#   A spec (whatever has `exec`) is checked and registered before the verb acts on its name.
# - A verb that acts is an error (`proc::failed`) unless every service does what was asked.
# - What a service may say of itself is in the documentation under "Spec". Fields that are not known
#   are kept as they are; one that looks like a slip of the pen is pointed out on stderr.
# - Every name here begins with `service`; those that begin with `proc` are the plugin's.

# The fields that shimd reads: at the top, and in each field that holds records.
const fields = {
    spec: [name exec cwd env user group umask sockets kill_other ready stop restart on_missing settle depends_on log autostart wedged_after]
    sockets: [path type mode optional clients backlog]
    kill_other: [socket]
    ready: [timeout marker notify]
    stop: [signal timeout]
    restart: [policy delay max_delay limit window]
    log: [max_size keep]
}

# Check a spec, and give it as it will be registered.
#
# The words of `exec` and the values of `env` become strings, a program without a slash is looked up
# on this shell's PATH (shimd has its own), and `~` and a relative program path are expanded here.
@category services
@search-terms service spec check
@example "Words that Nushell reads as numbers become strings" {
    service spec {name: web, exec: [/usr/bin/env --port 80]} | get exec
} --result ["/usr/bin/env" "--port" "80"]
@example "Unknown fields are kept" {
    service spec {name: web, exec: [/bin/true], owner: ops} | get owner
} --result "ops"
export def "service spec" [
    spec: record<name: string, exec: list> # the spec
]: nothing -> record {
    checked $spec (metadata $spec).span
}

# Register specs and start their services: each is up when all its sockets are `ok`.
#
# A service that already runs goes on as it is; `service restart` gives it a changed spec.
# Dependencies (`depends_on`) come up first, in any order of the arguments.
@category services
@search-terms start run register launch
@example "Run a program that has no socket" {
    service up {name: nap, exec: [tail -f /dev/null]} | get 0.status
} --result "running"
@example "A service that does not come up is an error" {
    try { service up {name: dud, exec: ["false"], sockets: [rpc.sock], restart: {policy: never}} } catch {|e| $e.details.code }
} --result "proc::failed"
@example "Several at once, from a list of specs" {
    [{name: one, exec: [tail -f /dev/null]} {name: two, exec: [tail -f /dev/null], depends_on: [one]}] | service up | get name | sort
} --result [one two]
export def "service up" [
    ...services: oneof<list, record, string>@"nu-complete services" # specs, or names of registered services
]: any -> table {
    let input = $in
    let span = (metadata $services).span
    let names = $input | settled $services $span
    labelled $span { $names | proc start --fail }
}

# Stop services; they stay registered.
@category services
@search-terms stop halt
@example "Stop a service" {
    service up {name: nap, exec: [tail -f /dev/null]}; service down nap | get 0.status
} --result "inactive"
export def "service down" [
    ...services: oneof<list, record, string>@"nu-complete services" # names, or the specs that were registered
]: any -> table {
    let input = $in
    let span = (metadata $services).span
    let names = $input | named $services $span
    labelled $span { $names | proc stop --fail }
}

# Restart services; a spec among the arguments is registered first, so a changed one takes effect.
@category services
@search-terms restart reload clean
@example "Stop the whole process tree, clear the way, start, and see every socket ok" {
    service restart --clean {name: nap, exec: [tail -f /dev/null]} | get 0.outcome
} --result "restarted"
export def "service restart" [
    ...services: oneof<list, record, string>@"nu-complete services" # specs, or names of registered services
    --clean (-c) # end whoever else listens on the sockets, and remove stale files, before the start
]: any -> table {
    let input = $in
    let span = (metadata $services).span
    let names = $input | settled $services $span
    labelled $span { $names | proc restart --clean=$clean --fail }
}

# Compare the sockets of services with what the kernel has: one row a socket, with its verdict.
#
# Nothing is changed. Without a service: all of them.
@category services
@search-terms socket verdict dangling health
@example "No row is a socket that clients cannot reach" {
    service up {name: nap, exec: [tail -f /dev/null]}; service check nap | where verdict != ok
} --result []
export def "service check" [
    ...services: oneof<list, record, string>@"nu-complete services" # names, or the specs that were registered
    --fail (-f) # a verdict other than `ok` is an error
]: any -> table {
    let input = $in
    let span = (metadata $services).span
    let names = $input | subjects $services $span | get --optional name
    labelled $span { $names | proc socket-check --fail=$fail }
}

# Everything about one service: its state, its spec, its instance and its sockets.
@category services
@search-terms state health
@example "The spec as it was registered" {
    service up {name: nap, exec: [tail -f /dev/null], owner: ops}; service status nap | get spec.owner
} --result "ops"
export def "service status" [
    service: oneof<record, string>@"nu-complete services" # its name, or the spec that was registered
]: nothing -> record {
    let given = [$service] # the first statement would get the row of an `each` as input, which `metadata` refuses
    let span = (metadata $service).span
    let names = named $given $span
    labelled $span { proc status $names.0 }
}

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

# Services by name, with their state, for completion; none when there is no daemon to ask.
def "nu-complete services" []: nothing -> table {
    try { proc list | each {|it| {value: $it.name, description: $it.status} } } catch { [] }
}

# The names of the services that a verb is given, once the specs among them are registered.
def settled [given: list, span: record]: any -> list<string> {
    let subjects = $in | subjects $given $span
    let specs = $subjects | default [] | get spec | compact
    if ($specs | is-not-empty) { labelled $span { proc register $specs | ignore } }
    $subjects | names $span
}

# The names of the services that a verb is given.
def named [given: list, span: record]: any -> list<string> {
    $in | subjects $given $span | names $span
}

def names [span: record]: any -> list<string> {
    let subjects = $in
    if $subjects == null { bad-input "no service named" $span "give a spec or a name; `proc list` shows the names" }
    $subjects | get name
}

# What a verb is given, as `name` and, where it was a spec, the checked `spec`. Arguments win over
# input, since within `each` every command gets the row as input. Null where there is neither.
def subjects [given: list, span: record]: any -> any {
    require-plugin
    let input = $in
    if $input == null and ($given | is-empty) { return null }
    mut found = []
    for value in (if ($given | is-empty) { [$input] } else { $given }) { # no `each`: it wraps the errors of its closure
        for it in (if ($value | describe --detailed | get type) in [list table] { $value } else { [$value] }) {
            $found ++= match $it {
                {exec: _} => { let spec = checked $it $span; [{name: $spec.name, spec: $spec}] }
                {name: $name} | {service: $name} if ($name | describe) == string => [{name: $name, spec: null}]
                $name if ($name | describe) == string => [{name: $name, spec: null}]
                _ => { bad-input $"neither a service nor a spec: ($it | to nuon)" $span "give names, specs with `name` and `exec`, or rows with a `name` or `service` column" }
            }
        }
    }
    $found | uniq-by name
}

# Runs the plugin's part of a verb. Its errors get their label where the verb was called, not in this file.
def labelled [span: record, act: closure]: nothing -> any {
    try { do $act } catch {|e|
        let text = if $e.details.code == "proc::failed" { "asked for here" } else { $e.details.labels | get 0?.text | default "given here" }
        error make ($e.details | update labels [{text: $text, span: $span}])
    }
}

def bad-input [msg: string, span: record, help: string]: nothing -> error {
    error make {msg: $msg, code: "service::bad_input", labels: [{text: "given here", span: $span}], help: $help}
}

# The spec with strings for words and absolute paths; a likely slip in a field name is told on stderr.
def checked [spec: record, span: record]: nothing -> record {
    let bad = {|field, problem, help|
        error make {
            msg: $"($field): ($problem)"
            code: "service::bad_spec"
            labels: [{text: "in this spec", span: $span}]
            help: $help
        }
    }
    if ($spec.name? | describe) != string { do $bad name "missing, or not a string" "name the service, as in `name: web`" }
    if ($spec.exec? | describe --detailed | get type) not-in [list table] or ($spec.exec? | is-empty) {
        do $bad exec "not a list of words" "give the program and its arguments, as in `exec: [tail -f /dev/null]`; no shell is involved"
    }
    for hint in (slips $spec) { print --stderr $"spec ($spec.name): ($hint)" }

    mut words = []
    for it in ($spec.exec | enumerate) {
        $words ++= match ($it.item | describe) {
            "string" | "int" | "bool" => [($it.item | into string)]
            $type => { do $bad $"exec[($it.index)]" $"a word is wanted, and Nushell reads ($it.item | to nuon) as a ($type)" "put quotes around it" }
        }
    }
    let program = $words | first
    let program = if ($program | str contains /) {
        $program | path expand --no-symlink
    } else {
        which --all $program | where type == external | get 0?.path | default $program
    }
    let env_strings = $spec.env? | default {} | items {|name, value|
        {name: $name, value: (if ($value | describe) in [int bool] { $value | into string } else { $value })}
    }
    $spec
    | update exec ([$program] ++ ($words | skip 1))
    | if env in $spec { update env ($env_strings | transpose --header-row --as-record) } else { $in }
    | if ($spec.cwd? | default "" | str starts-with "~") { update cwd { path expand --no-symlink } } else { $in }
}

# Field names in a spec that are not known but close to one that is, in words.
def slips [spec: record]: nothing -> list<string> {
    let nested = $fields | columns | skip 1 | each {|field|
        [($spec | get --optional $field)] | flatten | where {|it| ($it | describe --detailed | get type) == record } | each {|it| {of: $field, in: $it} }
    } | flatten
    [{of: spec, in: $spec}] ++ $nested | each {|it|
        let known = $fields | get $it.of
        $it.in | columns | where $it not-in $known | each {|field|
            let near = $known | where {|word|
                ($word | str distance $field) <= (($field | str length) // 3) or ($word | str starts-with $"($field)_")
            }
            if ($near | is-not-empty) {
                let place = if $it.of == spec { "" } else { $"($it.of)." }
                $"unknown field `($place)($field)` is kept and has no effect; did you mean `($place)($near | first)`?"
            }
        }
    } | flatten
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

# Nushell binds `proc …` when it reads this file: without the plugin the calls here are external ones, and stay so.
def require-plugin []: nothing -> nothing {
    if (view ir {|| proc list } | str contains "run-external") {
        let plugin = which nu_plugin_proc | get 0?.path | default "<folder>/nu_plugin_proc"
        error make --unspanned {
            msg: "the Nushell plugin `proc` was not loaded when nu/lib.nu was read"
            code: "service::no_plugin"
            help: $"register it once with `plugin add ($plugin)`, then start a new Nushell"
        }
    }
}
