# What the verbs of lib.nu have in common: whom they are for, and where an error is marked.

use spec.nu checked

# Services by name, with their state, for completion; none when there is no daemon to ask.
export def "nu-complete services" []: nothing -> table {
    try { proc list | each {|it| {value: $it.name, description: $it.status} } } catch { [] }
}

# The names of the services that a verb is given, once the specs among them are registered.
export def settled [given: list, span: record]: any -> list<string> {
    let subjects = $in | subjects $given $span
    let specs = $subjects | default [] | get spec | compact
    if ($specs | is-not-empty) { labelled $span { proc register $specs | ignore } }
    $subjects | names $span
}

# The names of the services that a verb is given.
export def named [given: list, span: record]: any -> list<string> {
    $in | subjects $given $span | names $span
}

def names [span: record]: any -> list<string> {
    let subjects = $in
    if $subjects == null { bad-input "no service named" $span "give a spec or a name; `proc list` shows the names" }
    $subjects | get name
}

# What a verb is given, as `name` and, where it was a spec, the checked `spec`. Arguments win over
# input, since within `each` every command gets the row as input. Null where there is neither.
export def subjects [given: list, span: record]: any -> any {
    require-plugin
    let input = $in
    if $input == null and ($given | is-empty) { return null }
    mut found = []
    for it in (flat (if ($given | is-empty) { $input } else { $given })) { # no `each`: it wraps the errors of its closure
        $found ++= match $it {
            {exec: _} => { let spec = checked $it $span; [{name: $spec.name, spec: $spec}] }
            {name: $name} | {service: $name} if ($name | describe) == string => [{name: $name, spec: null}]
            $name if ($name | describe) == string => [{name: $name, spec: null}]
            _ => { bad-input $"neither a service nor a spec: ($it | to nuon)" $span "give names, specs with `name` and `exec`, or rows with a `name` or `service` column" }
        }
    }
    for same in ($found | where spec != null | group-by name --to-table) {
        if ($same.items.spec | uniq | length) > 1 {
            bad-input $"two specs for one service: ($same.name)" $span "give each service a name of its own"
        }
    }
    $found | sort-by {|it| $it.spec == null } | uniq-by name # the spec of a service that is named besides
}

# A value, or what a list of them holds, and the lists in it (a group is a list of specs).
def flat [value: any]: nothing -> list {
    if ($value | describe --detailed | get type) not-in [list table] { return [$value] }
    mut all = []
    for it in $value { $all ++= flat $it }
    $all
}

# Runs the plugin's part of a verb. Its errors get their label where the verb was called, not in this file.
export def labelled [span: record, act: closure]: nothing -> any {
    try { do $act } catch {|e|
        let text = if $e.details.code == "proc::failed" { "asked for here" } else { $e.details.labels | get 0?.text | default "given here" }
        error make ($e.details | update labels [{text: $text, span: $span}])
    }
}

export def bad-input [msg: string, span: record, help: string]: nothing -> error {
    error make {msg: $msg, code: "service::bad_input", labels: [{text: "given here", span: $span}], help: $help}
}

# Nushell binds `proc …` when it reads this file: without the plugin the calls here are external ones, and stay so.
export def require-plugin []: nothing -> nothing {
    if (view ir {|| proc list } | str contains "run-external") {
        let plugin = which nu_plugin_proc | get 0?.path | default "<folder>/nu_plugin_proc"
        error make --unspanned {
            msg: "the Nushell plugin `proc` was not loaded when nu/lib.nu was read"
            code: "service::no_plugin"
            help: $"register it once with `plugin add ($plugin)`, then start a new Nushell"
        }
    }
}
