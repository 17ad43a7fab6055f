//! The variables of the environment whose names begin like those of settings.

use std::env;

use super::declarations::ALL;

const PREFIX: &str = "HOLDFAST_";
/// The variables that the examples and documents use, for what is beside the program.
const OF_EXAMPLES: [&str; 3] = [
    "HOLDFAST_TOKEN",
    "HOLDFAST_PUBLIC_URL",
    "HOLDFAST_INTERNAL_URL",
];

/// Returns whether a variable is there and empty, or only white space. That is the same as if it were
/// not there.
pub(super) fn is_empty(variable: &str) -> bool {
    let value = env::var_os(variable);
    value.is_some_and(|value| value.to_str().is_some_and(|text| text.trim().is_empty()))
}

/// Returns warnings about variables that are no settings, for example because of a typing mistake.
pub(super) fn warnings() -> Vec<String> {
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut unknown: Vec<_> = names.filter(|name| is_unknown(name)).collect();
    unknown.sort_unstable();
    let warning = |name: String| format!("the variable {name} is no setting: it has no effect");
    unknown.into_iter().map(warning).collect()
}

fn is_unknown(name: &str) -> bool {
    let mut settings = ALL.iter().filter_map(|setting| setting.about().variable());
    name.starts_with(PREFIX)
        && !OF_EXAMPLES.contains(&name)
        && !is_of_kubernetes(name)
        && !settings.any(|setting| setting == name)
}

/// Returns whether Kubernetes makes such a variable in each pod, for a Service whose name begins with
/// `holdfast`: `HOLDFAST_PORT`, `HOLDFAST_SERVICE_HOST`, `HOLDFAST_PORT_11000_TCP_ADDR` and so on.
fn is_of_kubernetes(name: &str) -> bool {
    // The Service may be called `holdfast` alone, so that nothing is between the two.
    let rest = &name[PREFIX.len() - 1..];
    let has_port = |(_, port): (&str, &str)| {
        let mut words = port.split('_');
        let is_number = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
        words.next().is_some_and(is_number) && matches!(words.next(), Some("TCP" | "UDP" | "SCTP"))
    };
    rest.ends_with("_SERVICE_HOST")
        || rest.ends_with("_PORT")
        || rest.contains("_SERVICE_PORT_")
        || rest.split_once("_PORT_").is_some_and(has_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_settings_kubernetes_and_the_examples_are_known() {
        for known in [
            "HOLDFAST_HOLD",
            "HOLDFAST_DRAIN_NOTICE",
            "HOLDFAST_TOKEN",
            "HOLDFAST_PORT",
            "HOLDFAST_SERVICE_HOST",
            "HOLDFAST_SERVICE_PORT",
            "HOLDFAST_SERVICE_PORT_HTTP",
            "HOLDFAST_PORT_11000_TCP",
            "HOLDFAST_PORT_11000_TCP_PROTO",
            "HOLDFAST_PORT_11000_TCP_PORT",
            "HOLDFAST_PORT_11000_TCP_ADDR",
            "HOLDFAST_NODES_PORT_11001_TCP_ADDR",
            "HOLDFAST_NODES_SERVICE_PORT_INTERNAL",
            "HOME",
        ] {
            assert!(!is_unknown(known), "{known}");
        }
        for unknown in [
            "HOLDFAST_HODL",
            "HOLDFAST_",
            "HOLDFAST_CHECK",
            "HOLDFAST_PORTS",
        ] {
            assert!(is_unknown(unknown), "{unknown}");
        }
    }
}
