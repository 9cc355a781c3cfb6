# What service modules are written with: a spec, and the verbs that work on it.
#
#     use nu/lib.nu *
#     service up {name: nap, exec: [tail -f /dev/null]}
#
# - A verb takes specs, names, rows with a `name` or `service` column, and lists of these (a group is a
#   list of specs), as arguments or as input. A spec (whatever has `exec`) is checked and registered
#   before the verb acts on its name.
# - A verb that acts is an error (`proc::failed`) unless every service does what was asked.
# - What a service may say of itself is in the documentation under "Spec". Fields that are not known
#   are kept as they are; one that looks like a slip of the pen is pointed out on stderr.
# - Every name here begins with `service`; those that begin with `proc` are the plugin's.

export use lib/spec.nu ["service spec" "service socket-spec"]
export use lib/verbs.nu *
export use lib/groups.nu *
export use lib/places.nu *
export use lib/install.nu *
export use lib/new.nu *
export use lib/overview.nu *
