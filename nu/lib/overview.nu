# `service` by itself.

# Service modules: a spec, and the verbs that work on it.
#
# A verb takes specs, names, rows with a `name` or `service` column, and lists of these, as arguments or as
# input. One that acts is an error (`proc::failed`) unless every service does what was asked. What the verbs
# do not do, the plugin does with the same names and rows: `proc events`, `proc history`, `proc top`.
#
# Words that begin no verb go to the system's own `service` program, where there is one.
@category services
@search-terms overview verbs module lib.nu
@example "See what there is" { service | lines | where $it =~ "service up" | is-not-empty } --result true
export def --wrapped service [
    ...words: string # for the system's own program
]: any -> any {
    if ($words | is-empty) or $words.0 in ["--help" "-h"] { return (help service) }
    if (which --all service | where type == external | is-empty) {
        error make {
            msg: $"no such verb: service ($words.0)"
            code: "service::bad_input"
            labels: [{text: "no verb begins so", span: (metadata $words).span}]
            help: "`service` by itself shows the verbs"
        }
    }
    ^service ...$words
}
