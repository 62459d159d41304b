//! Secrets from the environment, for hosts that are configured by it.

use std::fmt;
use std::sync::Arc;

use wasmhook_core::{SecretName, TenantId};
use zeroize::Zeroizing;

type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Where environment variables are read from; the process's own by default.
#[derive(Clone)]
pub struct Environment(Arc<Lookup>);

impl Environment {
    /// Reads variables with a function, such as a map's lookup in a test.
    pub fn new(lookup: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(lookup))
    }

    pub(crate) fn get(&self, variable: &str) -> Option<Zeroizing<String>> {
        (self.0)(variable).map(Zeroizing::new)
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self::new(|variable| std::env::var(variable).ok())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

/// `WASMHOOK_SECRET_<TENANT>_<NAME>`: upper case, everything but letters and digits as `_`.
pub(crate) fn variable(tenant: &TenantId, name: &SecretName) -> String {
    format!("{}{}", prefix(tenant), folded(name.as_str()))
}

fn prefix(tenant: &TenantId) -> String {
    format!("WASMHOOK_SECRET_{}_", folded(tenant.as_str()))
}

fn folded(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect()
}

/// Whether the variable is this tenant's among all tenants. Folding makes names ambiguous:
/// `WASMHOOK_SECRET_A_B_C` is secret `c` of `a_b`, but also `b_c` of `a`. It belongs to the tenant
/// with the longest name that fits, and to nobody when two fold alike, so that no tenant reaches
/// another's secret by choosing a name.
pub(crate) fn owns<'a>(
    tenant: &TenantId,
    variable: &str,
    mut tenants: impl Iterator<Item = &'a TenantId>,
) -> bool {
    let own = prefix(tenant);
    !tenants.any(|other| {
        let prefix = prefix(other);
        other != tenant && prefix.len() >= own.len() && variable.starts_with(&prefix)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(text: &str) -> TenantId {
        TenantId::new(text).unwrap()
    }

    #[test]
    fn the_variable_is_upper_case_with_underscores() {
        let name = SecretName::new("main-2").unwrap();
        assert_eq!(
            variable(&tenant("acme.eu"), &name),
            "WASMHOOK_SECRET_ACME_EU_MAIN_2"
        );
    }

    #[test]
    fn an_ambiguous_variable_belongs_to_the_longest_name() {
        let (short, long) = (tenant("a"), tenant("a_b"));
        let tenants = [short.clone(), long.clone()];
        assert!(owns(&long, "WASMHOOK_SECRET_A_B_C", tenants.iter()));
        assert!(!owns(&short, "WASMHOOK_SECRET_A_B_C", tenants.iter()));
        assert!(owns(&short, "WASMHOOK_SECRET_A_C", tenants.iter()));
    }

    #[test]
    fn a_variable_of_two_names_that_fold_alike_is_nobodys() {
        let tenants = [tenant("a-b"), tenant("a.b")];
        for tenant in &tenants {
            assert!(!owns(tenant, "WASMHOOK_SECRET_A_B_C", tenants.iter()));
        }
    }
}
