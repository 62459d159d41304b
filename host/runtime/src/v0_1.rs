//! Components that were built for `wasmhook:plugin@0.1.0`: its two exports and two imports, which say the
//! same in 1.0.0 under other names.

use wasmtime::component::{HasSelf, Instance, InstancePre, Linker};
use wasmtime::{AsContextMut, Result};

use crate::bindings::{config, log, resolve, transform, types};
use crate::state::State;

/// The types that both versions share, under the name that one alias has in the old one, where headers
/// are answered and never given.
#[allow(unreachable_pub, reason = "the generated code passes it on")]
pub mod same_types {
    pub use crate::bindings::types::{HeaderResult as Header, *};
}

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    reason = "generated code"
)]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit/0.1.0",
        world: "plugin",
        ownership: Borrowing { duplicate_if_necessary: true },
        imports: { default: trappable },
        exports: { default: async },
        with: { "wasmhook:plugin/types@0.1.0": crate::v0_1::same_types },
    });
}

use generated::exports::wasmhook::plugin::{resolve as old_resolve, transform as old_transform};
use generated::wasmhook::plugin::{config as old_config, log as old_log};

/// The version.
pub(crate) const VERSION: &str = "0.1.0";

/// Whether the version has an interface of this name.
pub(crate) fn has(interface: &str) -> bool {
    matches!(
        interface,
        "types" | "log" | "config" | "transform" | "resolve"
    )
}

/// Provide what it imports.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> Result<()> {
    old_log::add_to_linker::<_, HasSelf<_>>(linker, |state: &mut State| state)?;
    old_config::add_to_linker::<_, HasSelf<_>>(linker, |state: &mut State| state)
}

impl old_log::Host for State {
    fn log(&mut self, level: old_log::Level, message: String) -> Result<()> {
        let level = match level {
            old_log::Level::Trace => log::Level::Trace,
            old_log::Level::Debug => log::Level::Debug,
            old_log::Level::Info => log::Level::Info,
            old_log::Level::Warn => log::Level::Warn,
            old_log::Level::Error => log::Level::Error,
        };
        log::Host::log(self, level, message)
    }
}

impl old_config::Host for State {
    fn get(&mut self, key: String) -> Result<Option<String>> {
        config::Host::get(self, key)
    }

    fn all(&mut self) -> Result<Vec<(String, String)>> {
        config::Host::all(self)
    }
}

/// An exported interface of either version: where it is in a component, and in an instance of it.
macro_rules! either {
    ($indices:ident, $guest:ident, $new:ident, $old:ident) => {
        pub(crate) enum $indices {
            New($new::GuestIndices),
            Old($old::GuestIndices),
        }

        #[derive(Clone)]
        pub(crate) enum $guest {
            New($new::Guest),
            Old($old::Guest),
        }

        impl $indices {
            /// Find it; the error is about the new version if there is none of the old.
            pub(crate) fn new(pre: &InstancePre<State>) -> Result<Self> {
                match $new::GuestIndices::new(pre) {
                    Ok(indices) => Ok(Self::New(indices)),
                    Err(error) => $old::GuestIndices::new(pre)
                        .map(Self::Old)
                        .map_err(|_| error),
                }
            }

            pub(crate) fn load(
                &self,
                store: impl AsContextMut<Data = State>,
                instance: &Instance,
            ) -> Result<$guest> {
                Ok(match self {
                    Self::New(indices) => $guest::New(indices.load(store, instance)?),
                    Self::Old(indices) => $guest::Old(indices.load(store, instance)?),
                })
            }
        }
    };
}

either!(TransformIndices, Transform, transform, old_transform);
either!(ResolveIndices, Resolve, resolve, old_resolve);

impl Transform {
    pub(crate) async fn call_transform(
        &self,
        store: impl AsContextMut<Data = State>,
        event: types::Event<'_>,
        endpoint: types::Endpoint<'_>,
    ) -> Result<std::result::Result<transform::Verdict, types::Failure>> {
        let guest = match self {
            Self::New(guest) => return guest.call_transform(store, event, endpoint).await,
            Self::Old(guest) => guest,
        };
        let answer = guest.call_transform(store, event, endpoint).await?;
        Ok(answer.map(|verdict| match verdict {
            old_transform::Verdict::Deliver(request) => transform::Verdict::Deliver(request),
            old_transform::Verdict::Skip(reason) => transform::Verdict::Skip(reason),
        }))
    }
}

impl Resolve {
    pub(crate) async fn call_resolve(
        &self,
        store: impl AsContextMut<Data = State>,
        event: types::Event<'_>,
        subscribed: &[types::Endpoint<'_>],
    ) -> Result<std::result::Result<resolve::Resolution, types::Failure>> {
        let guest = match self {
            Self::New(guest) => return guest.call_resolve(store, event, subscribed).await,
            Self::Old(guest) => guest,
        };
        let answer = guest.call_resolve(store, event, subscribed).await?;
        Ok(answer.map(|resolution| resolve::Resolution {
            mode: match resolution.mode {
                old_resolve::Mode::Add => resolve::Mode::Add,
                old_resolve::Mode::Replace => resolve::Mode::Replace,
            },
            choices: resolution.choices.into_iter().map(choice).collect(),
        }))
    }
}

fn choice(choice: old_resolve::Choice) -> resolve::Choice {
    match choice {
        old_resolve::Choice::Registered(id) => resolve::Choice::Registered(id),
        old_resolve::Choice::New(made) => resolve::Choice::New(resolve::NewEndpoint {
            url: made.url,
            secret: made.secret,
            headers: made.headers,
            ordering_key: made.ordering_key,
        }),
    }
}
