# The order of services that depend on each other.

# The specs in waves: each wave depends only on those before it. Or the names along a circle of them.
export def waves [specs: list<record>]: nothing -> record<waves: list, circle: list<string>> {
    mut waves = []
    mut left = $specs
    while ($left | is-not-empty) {
        let waiting = $left | get name
        let ready = $left | where {|it| $it.depends_on? | default [] | all { $in not-in $waiting } }
        if ($ready | is-empty) { return {waves: [], circle: (circle $left [$left.0.name])} }
        $waves ++= [$ready]
        let placed = $ready | get name
        $left = $left | where name not-in $placed
    }
    {waves: $waves, circle: []}
}

# Each of these waits for another of them: whoever follows that, comes round.
def circle [specs: list<record>, path: list<string>]: nothing -> list<string> {
    let names = $specs | get name
    let next = $specs | where name == ($path | last) | get 0.depends_on | where $it in $names | first
    if $next in $path { $path | skip until {|it| $it == $next } | append $next } else { circle $specs ($path ++ [$next]) }
}
