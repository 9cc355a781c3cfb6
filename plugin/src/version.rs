//! A Nushell of another release: it refuses the plugin by itself, and does not say what to do.

use nu_plugin_protocol::{Protocol, ProtocolInfo};

/// What to say on stderr, in one line, where the Nushell that starts this plugin (its `NU_VERSION`) cannot work with it.
pub fn refusal(nushell: &str) -> Option<String> {
    let own = ProtocolInfo::default();
    let other =
        ProtocolInfo { protocol: Protocol::NuPlugin, version: nushell.to_owned(), features: Vec::new() };
    // What cannot be read as a version is no reason to say anything.
    if own.is_compatible_with(&other).unwrap_or(true) {
        return None;
    }
    let wanted = own.version;
    Some(format!(
        "nu_plugin_proc: this is Nushell {nushell}, the plugin is for {wanted}: npm install -g nushell@{wanted}, \
         or cargo install nu --version {wanted} --locked"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_release_is_told_and_the_same_is_not() {
        let own = ProtocolInfo::default().version;
        assert_eq!(refusal(&own), None);
        assert_eq!(refusal("not a version"), None);
        for other in ["0.1.0", "999.0.0"] {
            let said = refusal(other).unwrap();
            assert!(
                said.starts_with(&format!(
                    "nu_plugin_proc: this is Nushell {other}, the plugin is for {own}: "
                ))
            );
            assert_eq!(said.lines().count(), 1);
        }
    }
}
