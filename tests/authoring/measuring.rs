//! `plugin bench`.

use serde_json::json;

use crate::desk::{Desk, EVENTS, text};

#[test]
fn bench_measures_fresh_and_reused_instances() {
    let desk = Desk::new();
    let redact = desk.plugin("redact", "redact.wasm", "");
    std::fs::write(desk.path("events.ndjson"), EVENTS).unwrap();
    let bench = [
        "plugin",
        "bench",
        text(&redact),
        "--events",
        "events.ndjson",
        "--calls",
        "50",
    ];
    let rows = desk.json(&bench);
    let rows = rows.as_array().unwrap();
    let kinds: Vec<_> = rows
        .iter()
        .map(|row| (&row["asked"], &row["instance"]))
        .collect();
    assert_eq!(
        kinds,
        [
            (&json!("transform"), &json!("fresh")),
            (&json!("transform"), &json!("reused"))
        ]
    );
    for row in rows {
        assert_eq!((&row["calls"], &row["failed"]), (&json!(50), &json!(0)));
        assert!(
            row["p50_us"].as_f64() > Some(0.0) && row["p99_us"].as_f64() >= row["p50_us"].as_f64()
        );
        assert!(row["memory_bytes"].as_u64() > Some(0));
    }
    assert!(desk.says(&bench).contains("INSTANCE"));
    let mut none = bench;
    none[6] = "0";
    desk.fails(&none, 2, "from 1 to 100000");
    let unseen = desk.plugin("unseen", "redact.wasm", "events = [\"other\"]");
    desk.fails(
        &[
            "plugin",
            "bench",
            text(&unseen),
            "--events",
            "events.ndjson",
        ],
        1,
        "sees none of these events",
    );
}
