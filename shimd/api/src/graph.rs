//! The order in which services start: what a service depends on comes before it.

use std::collections::{BTreeMap, BTreeSet};

/// Services that wait for each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("depends_on goes in a circle: {}; take one of these names out of depends_on", path.join(" -> "))]
pub struct Cycle {
    /// Each service depends on the next; the last is the first again.
    pub path: Vec<String>,
}

/// The `wanted` services and all that they depend on, each once, dependencies first.
///
/// `deps` maps a service to the names in its `depends_on`. A name that `deps` does not hold has no dependencies, and is
/// in the result too: whether it exists is for the caller to say.
///
/// # Errors
/// A [`Cycle`] that is reachable from `wanted`. A cycle elsewhere in `deps` is not looked at.
pub fn dependency_order(
    deps: &BTreeMap<String, Vec<String>>,
    wanted: &[String],
) -> Result<Vec<String>, Cycle> {
    let mut order = Vec::new();
    let mut done = BTreeSet::new();
    // Depth first over a stack of its own: a long chain must not overflow the thread's.
    for root in wanted {
        let mut trail: Vec<(&str, std::slice::Iter<'_, String>)> = Vec::new();
        let mut on_trail = BTreeSet::new();
        let mut enter = (!done.contains(root.as_str())).then_some(root.as_str());
        loop {
            if let Some(name) = enter.take() {
                on_trail.insert(name);
                trail.push((name, deps.get(name).map(Vec::as_slice).unwrap_or_default().iter()));
            }
            let Some((name, rest)) = trail.last_mut() else { break };
            match rest.next() {
                Some(next) if on_trail.contains(next.as_str()) => {
                    let mut path: Vec<String> = trail
                        .iter()
                        .map(|(name, _)| name.to_string())
                        .skip_while(|name| name != next)
                        .collect();
                    path.push(next.clone());
                    return Err(Cycle { path });
                }
                Some(next) if !done.contains(next.as_str()) => enter = Some(next),
                Some(_) => {}
                None => {
                    on_trail.remove(name);
                    done.insert(*name);
                    order.push(name.to_string());
                    trail.pop();
                }
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn graph(edges: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        edges.iter().map(|(name, needs)| (name.to_string(), owned(needs))).collect()
    }

    #[test]
    fn dependencies_come_first_and_only_what_is_wanted_comes() {
        let deps = graph(&[("web", &["db", "cache"]), ("cache", &["db"]), ("other", &["web"])]);
        assert_eq!(dependency_order(&deps, &["web".into()]).unwrap(), ["db", "cache", "web"]);
        assert_eq!(dependency_order(&deps, &[]).unwrap(), [""; 0]);
        assert_eq!(dependency_order(&deps, &["db".into(), "db".into()]).unwrap(), ["db"]);
    }

    #[test]
    fn a_circle_is_told_from_its_first_name_back_to_it() {
        let deps =
            graph(&[("start", &["a"]), ("a", &["b"]), ("b", &["c"]), ("c", &["a"]), ("self", &["self"])]);
        let cycle = dependency_order(&deps, &["start".into()]).unwrap_err();
        assert_eq!(cycle.path, ["a", "b", "c", "a"]);
        assert_eq!(
            cycle.to_string(),
            "depends_on goes in a circle: a -> b -> c -> a; take one of these names out of depends_on"
        );
        assert_eq!(dependency_order(&deps, &["self".into()]).unwrap_err().path, ["self", "self"]);
    }

    #[test]
    fn a_long_chain_does_not_overflow_the_stack() {
        let deps = (0..100_000).map(|i| (i.to_string(), vec![(i + 1).to_string()])).collect();
        let order = dependency_order(&deps, &["0".into()]).unwrap();
        assert_eq!((order.len(), order.first().map(String::as_str)), (100_001, Some("100000")));
    }

    proptest! {
        #[test]
        fn an_order_is_topological_and_a_cycle_is_one(
            edges in proptest::collection::vec((0..12u8, 0..14u8), 0..24),
            wanted in proptest::collection::vec(0..14u8, 0..5),
        ) {
            let mut deps: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (from, to) in edges {
                deps.entry(from.to_string()).or_default().push(to.to_string());
            }
            let wanted: Vec<String> = wanted.iter().map(u8::to_string).collect();
            let needs = |name: &String| deps.get(name).cloned().unwrap_or_default();
            match dependency_order(&deps, &wanted) {
                Ok(order) => {
                    let place = |name: &String| order.iter().position(|other| other == name);
                    let mut once = order.clone();
                    once.sort();
                    once.dedup();
                    prop_assert_eq!(once.len(), order.len(), "a name twice in {:?}", order);
                    for name in &wanted {
                        prop_assert!(place(name).is_some(), "{} is missing", name);
                    }
                    for name in &order {
                        for need in needs(name) {
                            prop_assert!(place(&need).is_some_and(|at| Some(at) < place(name)));
                        }
                        let asked = wanted.contains(name) || order.iter().any(|other| needs(other).contains(name));
                        prop_assert!(asked, "{} was not asked for", name);
                    }
                }
                Err(Cycle { path }) => {
                    prop_assert!(path.len() > 1 && path.first() == path.last());
                    for pair in path.windows(2) {
                        prop_assert!(needs(&pair[0]).contains(&pair[1]), "{:?} is no circle", path);
                    }
                }
            }
        }
    }
}
