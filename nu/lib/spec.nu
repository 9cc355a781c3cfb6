# The spec: what is checked and made plain before the daemon sees it.

# The fields that shimd reads, and lib.nu's own `part_of`: at the top, and in each field that holds records.
const fields = {
    spec: [name exec cwd env user group umask sockets kill_other ready stop restart on_missing settle depends_on log autostart wedged_after part_of]
    sockets: [path type mode optional clients backlog]
    kill_other: [socket]
    ready: [timeout marker notify]
    stop: [signal timeout]
    restart: [policy delay max_delay limit window]
    log: [max_size keep]
}

# What a field may be, where it is one of a few words.
const choices = {
    on_missing: [relink restart report]
    policy: [always on-failure never]
    mode: [bind publish activate]
    type: [stream dgram seqpacket]
}

# Check a spec, and give it as it will be registered.
#
# The record is the spec. A flag sets one field of it, over what the record has there: flags complete,
# and Nushell knows their types before the line runs. `name` and `exec` of a record that is written out
# it knows too; all other fields the daemon looks at when the spec is registered.
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
@example "Fields by flags: Tab shows them" {
    service spec {name: web, exec: [/bin/true]} --stop-signal SIGINT --stop-timeout 1min --on-missing restart | get stop on_missing
} --result [{signal: "SIGINT", timeout: 1min} "restart"]
@example "A word that is none of the choices" {
    try { service spec {name: web, exec: [/bin/true]} --restart sometimes } catch {|e| $e.details.code }
} --result "service::bad_spec"
export def "service spec" [
    spec: record<name: string, exec: list> # the spec
    --sockets: list # file names, absolute paths, or what `service socket-spec` gives
    --depends-on: list<string> # services that are up before this one
    --user: string # whom to run as
    --cwd: path # the working folder
    --on-missing: string@[relink restart report] # what happens when a socket's file is lost
    --settle: duration # how long a file that the service itself removed may stay away
    --ready-timeout: duration # how long a start may take
    --ready-notify # it sends READY=1
    --stop-signal: string@[SIGTERM SIGINT SIGQUIT SIGHUP SIGUSR1 SIGUSR2] # what ends it
    --stop-timeout: duration # after that, SIGKILL
    --restart: string@[always on-failure never] # when it is started again
    --restart-delay: duration # the pause before that
    --restart-limit: int # how many starts a window may hold
    --log-size: filesize # how large each of its two logs may grow
    --log-keep: int # how many older logs are kept
    --autostart # up with every start of shimd
]: nothing -> record {
    chosen on_missing $on_missing (metadata $on_missing).span
    chosen policy $restart (metadata $restart).span
    mut all = $spec
    for it in [
        [at value];
        [$.sockets $sockets] [$.depends_on $depends_on] [$.user $user] [$.cwd $cwd]
        [$.on_missing $on_missing] [$.settle $settle]
        [$.ready.timeout $ready_timeout] [$.ready.notify (if $ready_notify { true })]
        [$.stop.signal $stop_signal] [$.stop.timeout $stop_timeout]
        [$.restart.policy $restart] [$.restart.delay $restart_delay] [$.restart.limit $restart_limit]
        [$.log.max_size $log_size] [$.log.keep $log_keep] [$.autostart (if $autostart { true })]
    ] {
        if $it.value != null { $all = $all | upsert $it.at $it.value }
    }
    checked $all (metadata $spec).span
}

# A record for the field `sockets` of a spec. A socket without any of these is declared by its name alone.
@category services
@search-terms socket listener spec publish activate
@example "A socket that shimd listens on, so that clients wait while no instance runs" {
    service socket-spec rpc.sock --mode activate --backlog 100
} --result {path: "rpc.sock", mode: "activate", backlog: 100}
@example "In a spec" {
    service spec {name: web, exec: [/bin/true], sockets: [rpc.sock (service socket-spec ui.sock --optional)]} | get sockets.1.optional
} --result true
export def "service socket-spec" [
    path: string # a file name (`rpc.sock`), an absolute path, or `@name`
    --mode: string@[bind publish activate] # who binds it: the service; each instance a path of its own; shimd
    --type: string@[stream dgram seqpacket] # what kind of socket (default: stream)
    --optional # the service is well without it
    --clients: list<string> # users and groups that must be able to connect
    --backlog: int # how many connections may wait, with `--mode activate`
]: nothing -> record {
    chosen mode $mode (metadata $mode).span
    chosen type $type (metadata $type).span
    {path: $path, mode: $mode, type: $type, optional: (if $optional { true }), clients: $clients, backlog: $backlog}
    | transpose field value | where value != null | transpose --header-row --as-record
}

# Refuses a word that is none of those that the field may be. Nushell completes them, and does not check.
def chosen [field: string, word: any, span: record]: nothing -> nothing {
    let all = $choices | get $field
    if $word != null and $word not-in $all {
        error make {
            msg: $"($field): ($word)"
            code: "service::bad_spec"
            labels: [{text: "not one of the choices", span: $span}]
            help: $"one of ($all | str join ', ')"
        }
    }
}

# The spec with strings for words and absolute paths; a likely slip in a field name is told on stderr.
export def checked [spec: record, span: record]: nothing -> record {
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
