# Install and update a service's program: built or copied, put in place whole, restarted, taken back where it does not work.

use given.nu *
use spec.nu checked
use verbs.nu ["service restart" "service up"]

# Put a service's program in place and have the service run it: the first time, and as an update.
#
# 1. `--build` makes the program. Where it fails nothing has changed.
# 2. A program that differs from the one in place is copied beside it and renamed over it, so that neither
#    a crash nor a running instance (`text file busy`) is in the way. The old one is kept as `….previous`.
# 3. The service is restarted clean if its program has changed since it was started, else only brought up.
# 4. Where the new program does not come up with every socket `ok`, the previous one is put back, with the
#    spec that was registered, and restarted; that is the error `service::rolled_back`.
#
# A second run with nothing new changes nothing. A run that was cut short is carried on by the next.
@category services
@search-terms build update upgrade deploy rollback
@example "Copy a program into place; a second time there is nothing to do" {
    let spec = {name: nap, exec: [(service state-dir nap | path join nap) -f /dev/null]}
    [1 2] | each { service install $spec /usr/bin/tail | get change }
} --result ["installed" "unchanged"]
@example "A build that fails changes nothing" {
    try { service install {name: web, exec: [/tmp/web]} target/web --build { ^false } } catch {|e| $e.details.code }
} --result "service::build_failed"
export def "service install" [
    spec: record<name: string, exec: list> # the service
    from: path # the program, as it was built or downloaded
    --build (-b): oneof<closure, list<string>> # makes it: a closure, or a command as in `[cargo build --release]`
    --to (-t): path # where it belongs (default: the first word of `exec`)
    --gapless (-g) # restart so that no client notices: for sockets of the modes `publish` and `activate`
    --quiet (-q) # no line of progress on a terminal
]: nothing -> record {
    require-plugin
    let span = {spec: (metadata $spec).span, from: (metadata $from).span, build: (metadata $build).span}
    let spec = checked $spec $span.spec
    if $to == null and not ($spec.exec.0 | str contains /) {
        bad-input $"where does ($spec.exec.0) belong?" $span.spec "begin `exec` with the program's whole path, or say it with --to"
    }
    if $build != null { made $build $span.build }
    let source = $from | path expand
    if ($source | path type) != file {
        bad-input $"no such file: ($from)" $span.from "give the path of the program, as the build writes it"
    }
    let to = $to | default $spec.exec.0 | path expand # of a link, what it leads to
    let previous = $"($to).previous"
    let change = if not ($to | path exists) { "installed" } else if (digest $source) != (digest $to) { "updated" } else { "unchanged" }

    labelled $span.spec { proc shim start | ignore } # so that null is: not registered
    let before = try { proc status $spec.name } catch { null }
    labelled $span.from { if $change != unchanged { put $source $to (if $before.status? != failed { $previous }) } }

    # Also where an earlier run was cut short between the rename and the restart.
    let stale = $change != unchanged or $before.instance?.started? != null and $before.instance.started < (ls --directory $to | get 0.modified)
    try {
        if $stale { service restart --clean=(not $gapless) --gapless=$gapless --quiet=$quiet $spec } else { service up --quiet=$quiet $spec }
    } catch {|e|
        if not $stale or $before == null or not ($previous | path exists) {
            error make ($e.details | update labels [{text: "does not come up", span: $span.spec}])
        }
        back $spec.name $before.spec $previous $to $e.msg $span.from $quiet
    }
    {
        name: $spec.name, change: $change, program: $to
        previous: (if ($previous | path exists) { $previous })
        pid: (proc status $spec.name | get pid)
    }
}

# Runs the build; what it says goes to the terminal.
def made [build: oneof<closure, list<string>>, span: record]: nothing -> nothing {
    let problem = try {
        if ($build | describe) == closure { do $build } else { run-external ...$build }
        null
    } catch {|e| $e.details?.labels?.0?.text? | default --empty $e.msg }
    if $problem != null { # not made within `catch`: Nushell would show both, and the one has its place in this file
        error make {
            msg: $"the build failed, and nothing was changed: ($problem)"
            code: "service::build_failed"
            labels: [{text: "this build", span: $span}]
            help: "its own words are above; run it by itself"
        }
    }
}

# A copy beside, on the disk, then one rename; what was there before stays as `previous`, if that is wanted.
def put [from: path, to: path, previous: any]: nothing -> nothing {
    let beside = $"($to).new"
    tool mkdir -p ($to | path dirname)
    tool install -m 0755 $from $beside
    tool sync $beside
    if $previous != null and ($to | path exists) {
        tool ln -f $to $"($previous).new"
        tool mv -f $"($previous).new" $previous
    }
    tool mv -f $beside $to
    tool sync ($to | path dirname)
}

# The previous program and spec once more; always an error, which says how that went.
def back [name: string, spec: record, previous: path, to: path, why: string, span: record, quiet: bool]: nothing -> error {
    let returned = try {
        tool mv -f $previous $to
        proc register $spec | ignore
        $name | proc restart --clean --fail --quiet=$quiet | ignore
        "the previous one runs again"
    } catch {|e| $"and the previous one does not come up either \(($e.msg)\)" }
    error make {
        msg: $"($name): the new program does not work, ($returned): ($why)"
        code: "service::rolled_back"
        labels: [{text: "this program", span: $span}]
        help: $"`service logs ($name)` has what it wrote"
    }
}

def digest [file: path]: nothing -> string { open --raw $file | hash sha256 }

# A program of coreutils, whose complaint is the error.
def --wrapped tool [...argv: string]: nothing -> nothing {
    let ran = run-external ...$argv | complete
    if $ran.exit_code != 0 {
        error make --unspanned {
            msg: ($ran.stderr | str trim)
            code: "service::not_installed"
            help: "nothing was restarted; the program in place is whole, the old or the new one"
        }
    }
}
