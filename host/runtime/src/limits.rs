//! Every limit on a call of a plugin, with its default and the reason for it.
//!
//! What bounds a component before it is called is in [`loading`](crate::LoadLimits).

use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// A number, or one that may be missing.
pub(crate) trait Bound {
    fn is_zero(&self) -> bool;
}

macro_rules! bound {
    ($($kind:ty)*) => {
        $(impl Bound for $kind {
            fn is_zero(&self) -> bool {
                *self == 0
            }
        })*
    };
}

bound! { u32 u64 usize }

impl<T: Bound> Bound for Option<T> {
    fn is_zero(&self) -> bool {
        self.as_ref().is_some_and(Bound::is_zero)
    }
}

/// Reads a limit that nothing could stay within if it were zero.
pub(crate) fn above_zero<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Bound + Deserialize<'de>,
{
    let number = T::deserialize(deserializer)?;
    if number.is_zero() {
        return Err(D::Error::custom("expected at least 1"));
    }
    Ok(number)
}

/// Writes each limit down once: as a field of [`Limits`] with its default, and as a key that may be
/// missing in [`PartialLimits`].
macro_rules! limits {
    ($($(#[doc = $doc:literal])* $(#[serde($rule:meta)])? $name:ident: $kind:ty = $default:expr;)*) => {
        /// What one plugin may use in one call. The host's own values are the defaults of every plugin;
        /// a manifest may ask for others, up to the caps of the operator.
        ///
        /// Going over one ends the call with a [`Fault`](crate::Fault) that names it, but for the two
        /// that only cut what is logged.
        ///
        /// Sums to keep in mind when raising them: `memory_bytes` times the number of concurrent calls
        /// is the memory that tenants can make the host touch at once, and each component that may run
        /// at once reserves `memories` times 4 GiB of address space (not of memory).
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Limits {
            $($(#[doc = $doc])* $(#[serde($rule)])? pub $name: $kind,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        /// Some of the [`Limits`]: what a manifest asks for under `[limits]`, or the operator's caps.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct PartialLimits {
            $(#[doc = concat!("See [`Limits::", stringify!($name), "`].")]
            $(#[serde($rule)])?
            pub $name: Option<$kind>,)*
        }

        impl Limits {
            /// The most that a manifest can ask for: these limits, and each cap that is above its own.
            pub(crate) fn raised_to(&self, caps: &PartialLimits) -> Self {
                Self {
                    $($name: caps.$name.map_or(self.$name, |cap| self.$name.max(cap)),)*
                }
            }

            /// These limits with what a manifest asks for, none of it above `most`.
            pub(crate) fn with(&self, asked: &PartialLimits, most: &Self) -> Self {
                Self {
                    $($name: asked.$name.unwrap_or(self.$name).min(most.$name),)*
                }
            }
        }
    };
}

limits! {
    /// Bytes over all linear memories of one instance. 64 MiB: a JavaScript or Python guest starts
    /// with 10–30 MiB, a Rust one with 1 MiB.
    #[serde(deserialize_with = "above_zero")]
    memory_bytes: usize = 64 << 20;
    /// Processor time of the guest in one call, start-up of a fresh instance included, in
    /// milliseconds. Time spent waiting is not counted. 50 ms: a thousand times what a transform of
    /// 1 KiB takes in Rust, thirty times what it takes in Python.
    #[serde(deserialize_with = "above_zero")]
    cpu_time_ms: u64 = 50;
    /// Time that one call may spend waiting in functions of the host, in milliseconds. 1 s: nothing
    /// that a guest can wait for today is worth more, and it holds a place for calls meanwhile.
    #[serde(deserialize_with = "above_zero")]
    wait_time_ms: u64 = 1_000;
    /// Time on the wall for one call, waiting included, in milliseconds. 2 s: well below any lease, and
    /// long enough for a guest within its processor time on a busy machine. A call waits for its turn
    /// among others for as long again, before it runs.
    #[serde(deserialize_with = "above_zero")]
    wall_time_ms: u64 = 2_000;
    /// Bytes of a request's body. 1 MiB: four times what receivers usually accept.
    #[serde(deserialize_with = "above_zero")]
    output_bytes: usize = 1 << 20;
    /// Bytes that a guest may hand to the host in one crossing, in a result or an argument: strings,
    /// lists and the pointers of lists, counted while the host copies them. 1.25 MiB: a body of
    /// the above with everything around it.
    #[serde(deserialize_with = "above_zero")]
    lifted_bytes: usize = (1 << 20) + (256 << 10);
    /// Headers of one request or new endpoint. 64: servers commonly refuse more than a hundred.
    headers: usize = 64;
    /// Endpoints that a resolver may choose for one event. 256: each becomes a delivery.
    choices: usize = 256;
    /// Bytes of log messages kept from one call; the rest is dropped. 16 KiB: a screen or two.
    log_bytes: usize = 16 << 10;
    /// Log lines kept from one call; the rest is dropped. 64: as above.
    log_lines: u32 = 64;
    /// Calls in one call to each interface that the host provides. 10 000: the start of Python's
    /// runtime makes some hundreds; more is a loop that only costs.
    import_calls: u32 = 10_000;
    /// Bytes of randomness in one call. 64 KiB: keys and seeds need a few dozen.
    random_bytes: u64 = 64 << 10;
    /// Bytes of one value in the key-value store. 64 KiB: a token, a page of what was seen.
    value_bytes: usize = 64 << 10;
    /// HTTP requests of one call. 4: each is waited for while the delivery is.
    http_requests: u32 = 4;
    /// Bytes of the body of one of them. 64 KiB: a query, or the event itself.
    http_request_bytes: usize = 64 << 10;
    /// Bytes of the body of the answer. 256 KiB: what a payload may have.
    http_response_bytes: usize = 256 << 10;
    /// Time of one of them, in milliseconds. 800: less than may be waited in all, so that the guest is told
    /// and can go on without the answer.
    #[serde(deserialize_with = "above_zero")]
    http_time_ms: u64 = 800;
    /// Linear memories of one instance. 4: a component is usually made of one module with one memory,
    /// a composed one of a few.
    #[serde(deserialize_with = "above_zero")]
    memories: u32 = 4;
    /// Tables of one instance. 16: a module has one, and adapters add small ones.
    tables: u32 = 16;
    /// Elements over all tables of one instance. 100 000: one per function that is called through a
    /// pointer; Python's runtime has some 20 000.
    table_elements: usize = 100_000;
    /// Core instances of one component. 32: languages' tools make three to six, Python's one for each
    /// native library.
    #[serde(deserialize_with = "above_zero")]
    instances: u32 = 32;
    /// Resource handles that a guest may hold at once. 1 000: a guest with nothing granted opens the
    /// three standard streams and a clock.
    handles: usize = 1_000;
}

impl Limits {
    /// Processor time of one call.
    pub fn cpu_time(&self) -> Duration {
        Duration::from_millis(self.cpu_time_ms)
    }

    /// Time of one call in functions of the host.
    pub fn wait_time(&self) -> Duration {
        Duration::from_millis(self.wait_time_ms)
    }

    /// Time on the wall of one call.
    pub fn wall_time(&self) -> Duration {
        Duration::from_millis(self.wall_time_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_lowers_a_limit_and_raises_one_up_to_its_cap_only() {
        let host = Limits::default();
        let most = host.raised_to(&PartialLimits {
            wall_time_ms: Some(5_000),
            // A cap below the default does not lower it: the default is what everyone has.
            log_lines: Some(1),
            ..PartialLimits::default()
        });
        let asked = PartialLimits {
            cpu_time_ms: Some(5),
            memory_bytes: Some(usize::MAX),
            wall_time_ms: Some(60_000),
            ..PartialLimits::default()
        };
        let limits = host.with(&asked, &most);
        assert_eq!(limits.cpu_time_ms, 5);
        assert_eq!(
            limits.memory_bytes, host.memory_bytes,
            "it has no cap of its own"
        );
        assert_eq!(limits.wall_time_ms, 5_000);
        assert_eq!(limits.log_lines, host.log_lines);
        assert_eq!(host.with(&PartialLimits::default(), &most), host);
    }

    #[test]
    fn a_limit_that_nothing_could_stay_within_is_refused() {
        for limit in [
            "memory_bytes",
            "cpu_time_ms",
            "wait_time_ms",
            "wall_time_ms",
            "output_bytes",
            "lifted_bytes",
            "http_time_ms",
            "memories",
            "instances",
        ] {
            let text = format!("{limit} = 0");
            let refused = [
                toml::from_str::<Limits>(&text).map(|_| ()),
                toml::from_str::<PartialLimits>(&text).map(|_| ()),
            ];
            for refused in refused {
                assert_eq!(refused.unwrap_err().message(), "expected at least 1");
            }
        }
        // None of these at all is something to want.
        let none = "log_lines = 0\nhttp_requests = 0\nrandom_bytes = 0";
        assert_eq!(toml::from_str::<Limits>(none).unwrap().log_lines, 0);
        let one: PartialLimits = toml::from_str("cpu_time_ms = 1").unwrap();
        assert_eq!((one.cpu_time_ms, one.wall_time_ms), (Some(1), None));
    }
}
