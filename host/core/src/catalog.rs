//! The allow-list of event types.

use std::collections::BTreeSet;

use crate::error::{Context, Error, Result};
use crate::event::{Event, EventType};

/// Which event types exist. Fail-closed: what is not listed is refused, and an empty catalog, which
/// would refuse everything, cannot be made.
#[derive(Debug, Clone)]
pub struct Catalog {
    types: BTreeSet<EventType>,
}

impl Catalog {
    /// Makes a catalog of type names.
    ///
    /// Refuses an empty list (`unsupported webhook event`) and an invalid name, the wildcard `*`
    /// included (`invalid webhook event`).
    pub fn new<I, T>(names: I) -> Result<Self>
    where
        I: IntoIterator<Item = T>,
        T: AsRef<str>,
    {
        let types = names
            .into_iter()
            .map(EventType::new)
            .collect::<Result<BTreeSet<_>>>()?;
        if types.is_empty() {
            return Err(Error::UnsupportedEvent(Context::words(
                "the catalog is empty; expected at least one event type",
            )));
        }
        Ok(Self { types })
    }

    /// Refuses an event whose type is not listed.
    pub fn check(&self, event: &Event) -> Result<()> {
        if self.contains(&event.event_type) {
            Ok(())
        } else {
            Err(Error::UnsupportedEvent(Context::words(format!(
                "type `{}` is not in the catalog",
                event.event_type
            ))))
        }
    }

    /// Whether a type is listed.
    pub fn contains(&self, event_type: &EventType) -> bool {
        self.types.contains(event_type)
    }

    /// The listed types, in order.
    pub fn types(&self) -> impl Iterator<Item = &EventType> {
        self.types.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_catalog_is_refused() {
        let error = Catalog::new(Vec::<String>::new()).unwrap_err();
        assert!(matches!(error, Error::UnsupportedEvent(_)), "{error}");
    }

    #[test]
    fn invalid_entries_and_the_wildcard_are_refused() {
        for bad in ["*", "", "a b"] {
            let error = Catalog::new([bad]).unwrap_err();
            assert!(matches!(error, Error::InvalidEvent(_)), "{error}");
        }
    }

    #[test]
    fn what_is_not_listed_is_not_contained() {
        let catalog = Catalog::new([" invoice.paid "]).unwrap();
        assert!(catalog.contains(&EventType::new("invoice.paid").unwrap()));
        assert!(!catalog.contains(&EventType::new("invoice.Paid").unwrap()));
    }
}
