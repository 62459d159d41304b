//! Name lookup that answers with allowed addresses only.
//!
//! The connection is made to what this answers, so a name cannot be checked with one address and
//! connected to with another (DNS rebinding).

use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::address::AddressPolicy;
use crate::lookups::{ASKING, Lookups};

/// Why a name has no address to connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LookupError {
    /// The lookup failed, or answered with no address.
    #[error("the host name did not resolve")]
    NoAnswer,
    /// There are addresses, and the policy refuses them all.
    #[error("every address of the host name is refused")]
    AllRefused,
}

/// Looks names up, and drops what the policy refuses.
#[derive(Clone)]
pub(crate) struct GuardedResolver {
    policy: Arc<AddressPolicy>,
    lookups: Arc<Lookups>,
}

impl GuardedResolver {
    pub(crate) fn new(policy: Arc<AddressPolicy>, lookups: Arc<Lookups>) -> Self {
        Self { policy, lookups }
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Self { policy, lookups } = self.clone();
        // Here, and not in the future: that may go on in a task of its own.
        let tenant = ASKING.try_with(Clone::clone).ok();
        Box::pin(async move {
            let answers = lookups
                .look_up(tenant.as_ref(), name.as_str())
                .await
                .ok_or(LookupError::NoAnswer)?;
            let allowed = allowed(&policy, answers.iter().copied())?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

fn allowed(
    policy: &AddressPolicy,
    answers: impl Iterator<Item = SocketAddr>,
) -> Result<Vec<SocketAddr>, LookupError> {
    let mut any = false;
    let allowed: Vec<_> = answers
        .inspect(|_| any = true)
        .filter(|address| policy.allows(address.ip()))
        .collect();
    match (allowed.is_empty(), any) {
        (false, _) => Ok(allowed),
        (true, true) => Err(LookupError::AllRefused),
        (true, false) => Err(LookupError::NoAnswer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(answers: &[&str]) -> Result<Vec<String>, LookupError> {
        let answers = answers
            .iter()
            .map(|text| SocketAddr::new(text.parse().unwrap(), 0));
        allowed(&AddressPolicy::default(), answers).map(|kept| {
            kept.iter()
                .map(|address| address.ip().to_string())
                .collect()
        })
    }

    #[test]
    fn only_allowed_answers_are_kept() {
        assert_eq!(
            judged(&["127.0.0.1", "8.8.8.8", "fe80::1"]).unwrap(),
            ["8.8.8.8"]
        );
    }

    #[test]
    fn refused_and_missing_answers_are_told_apart() {
        assert_eq!(judged(&["10.0.0.1", "::1"]), Err(LookupError::AllRefused));
        assert_eq!(judged(&[]), Err(LookupError::NoAnswer));
    }
}
