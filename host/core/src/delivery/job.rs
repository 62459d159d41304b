//! Jobs: deliveries as a queue hands them out.

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::event::Event;
use crate::ids::{DeliveryId, EndpointId, TenantId};

/// What a queue hands to a [`crate::Handler`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Equal to the delivery id of the payload.
    pub id: DeliveryId,
    /// Equal to the tenant of the payload's event.
    pub tenant_id: TenantId,
    /// Attempts made before this one.
    pub attempt: u32,
    /// What is to be done.
    pub payload: JobPayload,
}

/// The content of a job. It holds no secret: the endpoint is loaded when the job is handled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobPayload {
    /// The delivery.
    pub delivery_id: DeliveryId,
    /// Where it goes.
    pub endpoint_id: EndpointId,
    /// What is delivered.
    pub event: Event,
}

impl JobPayload {
    /// The payload as JSON, for queues that keep bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|_| malformed())
    }

    /// Reads what [`Self::encode`] wrote; refuses anything malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|_| malformed())
    }
}

fn malformed() -> Error {
    Error::InvalidDelivery(Context::words("the job's payload is malformed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_jobs_are_refused() {
        for bad in [&b""[..], b"{}", b"[]", b"{\"delivery_id\":\"d\"}", b"\xff"] {
            assert!(matches!(
                JobPayload::decode(bad),
                Err(Error::InvalidDelivery(_))
            ));
        }
    }
}
