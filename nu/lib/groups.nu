# Groups: several services that are one thing to whoever runs them.

use given.nu *
use order.nu waves

# Groups by name, for completion; none when there is no daemon to ask.
def "nu-complete groups" []: nothing -> list<string> {
    try { registered | get spec.part_of? | compact | flatten | uniq } catch { [] }
}

# A list of specs that belong together, those that others depend on first.
#
# Every verb takes the list as a whole. Each spec gets the group's name into its field `part_of`, by
# which `service members` finds the services again once they are registered.
@category services
@search-terms group bundle stack several dependencies
@example "Dependencies come first" {
    service group shop {name: api, exec: [/bin/true], depends_on: [db]} {name: db, exec: [/bin/true]} | get name
} --result [db api]
@example "As a whole" {
    let shop = service group shop {name: api, exec: [tail -f /dev/null], depends_on: [db]} {name: db, exec: [tail -f /dev/null]}
    service up $shop; service restart --clean $shop | get outcome
} --result ["restarted" "restarted"]
@example "Services that wait for each other" {
    try { service group knot {name: a, exec: [/bin/true], depends_on: [b]} {name: b, exec: [/bin/true], depends_on: [a]} } catch {|e| $e.details.msg }
} --result "group knot: its services wait for each other: a -> b -> a"
export def "service group" [
    name: string # the group
    ...specs: oneof<record, list> # the specs of its services, or lists of them (other groups)
]: any -> list<record> {
    let input = $in
    let span = (metadata $specs).span
    let bad = {|msg, help|
        error make {msg: $"group ($name): ($msg)", code: "service::bad_group", labels: [{text: "of these specs", span: $span}], help: $help}
    }
    let found = $input | subjects $specs $span
    let nameless = $found | default [] | where spec == null
    if ($found | is-empty) or ($nameless | is-not-empty) {
        do $bad "it takes specs" "give each service's spec, as in `service group shop (db spec) (api spec)`"
    }
    let members = $found | get spec
    let names = $members | get name
    let away = $members | each {|it| $it.depends_on? | default [] | where $it not-in $names } | flatten | uniq
    # Where no daemon answers, it says itself what is not registered, once it starts the services.
    let known = if ($away | is-empty) { [] } else { try { proc list | get --optional name } catch { $away } }
    for missing in ($away | where $it not-in $known) {
        let who = $members | where {|it| $missing in ($it.depends_on? | default []) } | get name | str join ", "
        do $bad $"($who) depends on ($missing), which is no member and not registered" $"add the spec of ($missing), or `service up` it first"
    }
    let order = waves $members
    if ($order.circle | is-not-empty) {
        do $bad $"its services wait for each other: ($order.circle | str join ' -> ')" "take one of these out of its service's `depends_on`"
    }
    $order.waves | flatten | each {|it| $it | upsert part_of ($it.part_of? | default [] | append $name | uniq) }
}

# The registered services of a group, as rows of `proc list`: for any verb.
@category services
@search-terms group part_of list
@example "Restart a group by its name" {
    service up (service group shop {name: api, exec: [tail -f /dev/null]} {name: db, exec: [tail -f /dev/null]})
    service members shop | service restart --clean | get outcome
} --result ["restarted" "restarted"]
@example "A group that is not there" {
    proc register {name: nap, exec: [tail -f /dev/null]}
    try { service members shop } catch {|e| $e.details.code }
} --result "service::no_group"
export def "service members" [
    group: string@"nu-complete groups" # the group
]: nothing -> table {
    require-plugin
    let span = (metadata $group).span
    let all = labelled $span { registered }
    let names = $all | where {|it| $group in ($it.spec.part_of? | default []) } | get name
    if ($names | is-empty) {
        let groups = $all | get spec.part_of? | compact | flatten | uniq
        error make {
            msg: $"no service is registered in a group ($group)"
            code: "service::no_group"
            labels: [{text: "this group", span: $span}]
            help: (if ($groups | is-empty) { "`service up (service group NAME …)` registers one" } else { $"there are: ($groups | str join ', ')" })
        }
    }
    proc list | where name in $names
}

# Every registered service with its spec.
def registered []: nothing -> table {
    mut all = []
    for name in (proc list | get --optional name) { $all ++= [(proc status $name | select name spec)] } # no `each`: it wraps errors
    $all
}
