//! The setting that somebody may have meant.

use figment::Figment;
use figment::error::Kind;

use super::Config;

/// A key that no table has.
const NONE: &str = "?";
/// How alike names have to be, from 0 to 1.
const ALIKE: f32 = 0.75;

/// The setting whose name is most like this one, if any is; however the two are put into tables.
pub(super) fn nearest(name: &str) -> Option<String> {
    let plain = |name: &str| {
        name.to_lowercase()
            .replace(['.', '-'], "_")
            .replace("__", "_")
    };
    let all: Vec<(String, String)> = names()
        .into_iter()
        .map(|name| (plain(&name), name))
        .collect();
    let plains: Vec<&str> = all.iter().map(|(plain, _)| plain.as_str()).collect();
    let alike = similar::get_close_matches(plain(name).as_str(), &plains, 1, ALIKE);
    let nearest = alike.first()?;
    all.iter()
        .find(|(plain, _)| plain == *nearest)
        .map(|(_, name)| name.clone())
}

/// The names of all settings and of their tables.
fn names() -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut next = 0;
    let mut table = String::new();
    loop {
        for key in keys(&table) {
            all.push(if table.is_empty() {
                (*key).to_owned()
            } else {
                format!("{table}.{key}")
            });
        }
        let Some(name) = all.get(next) else {
            return all;
        };
        table.clone_from(name);
        next += 1;
    }
}

/// The keys of a table, by what it says about one that it cannot have; none for what is no table.
fn keys(table: &str) -> &'static [&'static str] {
    let name = if table.is_empty() {
        NONE.to_owned()
    } else {
        format!("{table}.{NONE}")
    };
    match Figment::from((name, true)).extract::<Config>() {
        Err(error) => match error.kind {
            Kind::UnknownField(field, expected) if field == NONE => expected,
            _ => &[],
        },
        Ok(_) => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_settings_are_known_by_their_full_names() {
        let names = names();
        for name in [
            "http.listen",
            "redis.tls.ca",
            "plugins.limits.cpu_time_ms",
            "plugins.limit_caps.memory_bytes",
            "plugins.rollback.faults",
            "retry.schedule",
            "plugins.key_value",
        ] {
            assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
        }
        assert!(names.iter().all(|name| !name.contains(NONE)));
    }

    #[test]
    fn the_nearest_is_found_whatever_table_it_was_looked_for_in() {
        for (misspelt, meant) in [
            ("http.lissten", "http.listen"),
            ("http_listen", "http.listen"),
            ("redis_urls", "redis.urls"),
            ("worker.concurency", "worker.concurrency"),
            ("plugins.limits.cpu_time", "plugins.limits.cpu_time_ms"),
            ("tenant", "tenants"),
        ] {
            assert_eq!(nearest(misspelt).as_deref(), Some(meant), "{misspelt}");
        }
        for strange in ["colour", "x", "valkey"] {
            assert_eq!(nearest(strange), None, "{strange}");
        }
    }
}
