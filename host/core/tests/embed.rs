//! The example is a test: what it says happens is what happens.

#[allow(dead_code)] // its `main` is not needed here
#[path = "../examples/embed.rs"]
mod embed;

use wasmhook_core::DeliveryState;

#[tokio::test]
async fn the_embedded_service_delivers_retries_and_replays() {
    let payload = r#"{"invoice":"inv_1","total":12.50}"#.to_owned();
    assert_eq!(
        embed::run().await.unwrap(),
        embed::Summary {
            statuses: vec![Some(503), Some(204), Some(204)],
            verified: vec![payload; 3],
            state: DeliveryState::Succeeded,
        }
    );
}
