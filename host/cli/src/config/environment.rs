//! Variables that begin like settings and are none.

/// Those of commands and of the project's own tools, without `WASMHOOK_`, in lower case.
const OTHERS: [&str; 4] = ["config", "listen_secret", "redis_server", "valkey_server"];

/// Whether `WASMHOOK_` and this name, in lower case, is to be a setting, and wrong if there is none of this name.
/// `value` is what it holds.
pub(super) fn is_setting(name: &str, value: impl FnOnce() -> Option<String>) -> bool {
    !name.starts_with("secret_") && !OTHERS.contains(&name) && !is_service_link(name, value)
}

/// Whether it is one of those by which Kubernetes tells every container of a namespace about a service called
/// `wasmhook`, or `wasmhook-…`: settings are in tables, so they have two underscores somewhere.
fn is_service_link(name: &str, value: impl FnOnce() -> Option<String>) -> bool {
    let name = format!("_{name}");
    if name.contains("__") {
        return false;
    }
    if name.ends_with("_service_host")
        || name.ends_with("_service_port")
        || name.contains("_service_port_")
        || is_of_a_port(&name)
    {
        return true;
    }
    // `WASMHOOK_PORT` may as well be somebody's idea of a setting, which is not to be passed over.
    name.ends_with("_port")
        && value().is_some_and(|value| {
            let scheme = value.split_once("://").map(|(scheme, _)| scheme);
            matches!(scheme, Some("tcp" | "udp" | "sctp"))
        })
}

/// `…_PORT_8080_TCP`, and the same with `_PROTO`, `_PORT` or `_ADDR`.
fn is_of_a_port(name: &str) -> bool {
    let without =
        |name, endings: &[&str]| endings.iter().find_map(|end| str::strip_suffix(name, end));
    let name = without(name, &["_proto", "_port", "_addr"]).unwrap_or(name);
    let number =
        without(name, &["_tcp", "_udp", "_sctp"]).and_then(|name| name.rsplit_once("_port_"));
    number.is_some_and(|(_, number)| number.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_passed_over(name: &str, value: &str) -> bool {
        !is_setting(&name.to_lowercase(), || Some(value.to_owned()))
    }

    #[test]
    fn the_service_links_of_kubernetes_are_no_settings() {
        for (name, value) in [
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT", "8080"),
            ("SERVICE_PORT_HTTP", "8080"),
            ("PORT", "tcp://10.0.0.1:8080"),
            ("PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("PORT_8080_TCP_PROTO", "tcp"),
            ("PORT_8080_TCP_PORT", "8080"),
            ("PORT_53_UDP_ADDR", "10.0.0.1"),
            ("REDIS_SERVICE_HOST", "10.0.0.1"),
            ("REDIS_PORT", "tcp://10.0.0.1:6379"),
            ("REDIS_PORT_6379_TCP_ADDR", "10.0.0.1"),
        ] {
            assert!(is_passed_over(name, value), "{name}");
        }
    }

    #[test]
    fn what_may_be_a_misspelt_setting_is_none_of_them() {
        for (name, value) in [
            ("PORT", "8080"),
            ("HTTP_PORT", "8080"),
            ("HTTP__PORT", "tcp://10.0.0.1:8080"),
            ("HTTP__SERVICE_HOST", "10.0.0.1"),
            ("PORT_HTTP_TCP", "8080"),
            ("HTTP_LISTEN", "127.0.0.1:8080"),
            ("SECRETS", "x"),
        ] {
            assert!(!is_passed_over(name, value), "{name}");
        }
    }
}
