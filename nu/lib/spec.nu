# The spec: what is checked and made plain before the daemon sees it.

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
