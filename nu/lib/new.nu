# A new module from the template.

use given.nu bad-input

const lib = path self ../lib.nu

# Write a new service module NAME.nu, with the spec and the verbs, and give its path.
#
# Its sockets are those that `--exec` names as `{socket:…}`. A module in another folder than lib.nu's
# `services` finds lib.nu by its whole path. A file that is there is left alone.
@category services
@search-terms template scaffold module create init
@example "A module for an echo server" {
    service new parrot --dir (mktemp --directory) --exec [ncat -lkU "{socket:parrot.sock}" -e /bin/cat] | path basename
} --result "parrot.nu"
@example "It is yours: there is no second time" {
    let dir = mktemp --directory
    service new parrot --dir $dir
    try { service new parrot --dir $dir } catch {|e| $e.details.code }
} --result "service::exists"
export def "service new" [
    name: string # the service and its module
    --dir (-d): directory = "." # where the module goes
    --exec (-e): list<oneof<string, int>> # the program and its arguments (default: a program of this name, with its socket)
]: nothing -> path {
    let dir = $dir | path expand # first: `metadata` refuses the input that the first statement gets within an `each`
    let span = (metadata $name).span
    if $name !~ '^[a-zA-Z][a-zA-Z0-9_-]{0,63}$' or $name == service {
        bad-input $"no name for a module: ($name)" $span "1 to 64 of letters, digits, `_` and `-`, the first a letter; not `service`"
    }
    if (which --all $name | any { $in.type in [built-in keyword plugin] }) {
        bad-input $"Nushell has a command ($name)" $span $"take another name, as `my-($name)`: the module's verbs are commands that begin with it"
    }
    let path = $dir | path join $"($name).nu"
    if ($path | path exists --no-symlink) {
        error make {
            msg: $"it is there already: ($path)"
            code: "service::exists"
            labels: [{text: "this module", span: $span}]
            help: "take another name or another --dir, or remove the file"
        }
    }
    mkdir $dir
    let words = $exec | default [$name $"{socket:($name).sock}"] | each { into string }
    let program = if ($words.0 | str contains /) { word $words.0 } else { $"\(service program (word $words.0))" }
    {
        name: $name
        use: (if $dir == ($lib | path dirname | path join services) { "../lib.nu" } else { $lib | to nuon })
        file: (if $dir == ($lib | path dirname | path join services) { $"($lib | path dirname | path basename)/services/($name).nu" } else { $path | to nuon })
        exec: ([$program] ++ ($words | skip 1 | each {|it| word $it }) | str join " ")
        sockets: ($words | parse --regex '\{socket:(?<path>[^}]+)\}' | get path | uniq | to nuon)
    } | template | save $path
    $path
}

# A word of a list: quoted, unless it is plain to see that Nushell reads it as it stands.
def word [text: string]: nothing -> string {
    let plain = $text =~ '^(-{0,2}[a-zA-Z]|/)[a-zA-Z0-9_./-]*$' and $text !~ '\.\.|^-?(true|false|null|nan|inf|infinity)$'
    if $plain { $text } else { $text | to nuon }
}

def template []: record -> string {
    let it = $in
    $"# ($it.name): what it is, in a line.
#
#     use ($it.file)
#     ($it.name) up; ($it.name) check; ($it.name) restart --clean; ($it.name) down

use ($it.use) *

# What shimd is told about ($it.name). All fields: docs/spec.md.
export def spec []: nothing -> record {
    service spec {
        name: ($it.name)
        exec: [($it.exec)]
        sockets: ($it.sockets)
    }
}

# Start ($it.name), registering it when needed: a row once it listens at its socket, else an error.
export def up []: nothing -> table { service up \(spec) }

# Stop ($it.name).
export def down []: nothing -> table { service down ($it.name) }

# Restart ($it.name) with the spec as it is now.
export def restart [
    --clean \(-c) # end whoever else listens on the socket, and remove a stale file, before the start
]: nothing -> table { service restart --clean=$clean \(spec) }

# The verdict on ($it.name)'s socket.
export def check [
    --fail \(-f) # a verdict other than `ok` is an error
]: nothing -> table { service check --fail=$fail ($it.name) }

# Everything about ($it.name): state, spec, instance, sockets.
export def status []: nothing -> record { service status ($it.name) }

# What ($it.name) writes, as `proc logs`: `($it.name) logs --follow`.
export def logs [
    --lines \(-n): int # so many lines of the past, the latest
    --follow \(-f) # go on with new lines as they are written
    --since \(-s): duration # only of so long ago until now
    --raw \(-r) # the bytes as they were written
]: nothing -> any { service logs ($it.name) --lines $lines --follow=$follow --since $since --raw=$raw }
"
}
