//! Which service was meant by a name that is none. Pure.

use std::sync::Arc;

/// The name that a slip of the fingers is nearest to: two letters changed places, one is another, missing or too many (in
/// a long name two of them). Else one that is part of what was given, or the other way round.
pub fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a Arc<str>> + Clone) -> Option<&'a str> {
    let slips = if given.chars().count() > 5 { 2 } else { 1 };
    let by_slips = names.clone().map(|name| (strsim::osa_distance(given, name), &**name));
    let near = by_slips.filter(|(slipped, _)| *slipped <= slips).min().map(|(_, name)| name);
    let is_part = |name: &&str| !given.is_empty() && (name.contains(given) || given.contains(name));
    near.or_else(|| names.map(|name| &**name).find(is_part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant() {
        let names: Vec<Arc<str>> = ["database", "db", "web", "web-two"].map(Arc::from).to_vec();
        for (given, meant) in [
            ("wbe", Some("web")),
            ("weeb", Some("web")),
            ("wed", Some("web")),
            ("datbse", Some("database")),
            ("web-tow", Some("web-two")),
            ("two", Some("web-two")),
            ("the web", Some("web")),
            ("redis", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, names.iter()), meant, "{given:?}");
        }
    }
}
