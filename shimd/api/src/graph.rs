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
