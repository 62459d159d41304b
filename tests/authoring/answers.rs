//! `plugin test` of a plugin that judges what receivers answer.

use crate::desk::{Desk, text};

#[test]
fn test_shows_what_answers_are_taken_for() {
    let desk = Desk::new();
    let manifest = "[config]\naccepted = \"409\"\nok = \"ok\"\nerror = \"error\"\nretry = \"rate_limited\"\nwait = \"30\"\n";
    let judge = desk.plugin("judge", "judge.wasm", manifest);
    let event = r#"{"tenant":"acme","type":"invoice.paid","id":"e1","payload":{}}"#;
    std::fs::write(desk.path("events.ndjson"), event).unwrap();
    let answers = [
        r#"{"status": 200, "body": {"ok": false, "error": "rate_limited"}}"#,
        r#"{"status": 200, "body": "{\"ok\": false}"}"#,
        "",
        r#"{"status": 503, "headers": {"Retry-After": "60"}}"#,
    ];
    std::fs::write(desk.path("answers.ndjson"), answers.join("\n")).unwrap();
    let words = [
        "plugin",
        "test",
        text(&judge),
        "--events",
        "events.ndjson",
        "--answer",
        "409",
        "--answer",
        "@answers.ndjson",
    ];
    let told = desk.says(&words);
    for line in [
        "  classify 409 for main: accepted: the receiver has it already (without it: give-up)",
        "  classify 200 for main: retry after 30 s: its body asks to try again (without it: accepted)",
        "  classify 200 for main: give-up: its body says that it failed (without it: accepted)",
        "  classify 503 for main: retry after 60 s (without it: retry)",
        "calls: 4, failed: 0",
    ] {
        assert!(told.contains(line), "expected {line:?} in {told}");
    }
    let report = desk.json(&words);
    let first = &report["events"][0]["calls"][0];
    assert_eq!(first["asked"], "classify");
    assert_eq!(first["status"], 409);
    assert_eq!(first["judgement"], "accepted");
    assert_eq!(first["otherwise"], "give-up");

    // An answer that the plugin cannot make sense of, and one that is no answer.
    desk.fails(
        &[&words[..5], &["--answer", "200"]].concat(),
        1,
        "1 of 1 call failed",
    );
    desk.fails(
        &[&words[..5], &["--answer", "20"]].concat(),
        2,
        "from 200 to 599",
    );
    desk.fails(
        &words[..5],
        1,
        "classify was not asked: say what receivers answer",
    );
    std::fs::write(desk.path("answers.ndjson"), "200\n{}").unwrap();
    desk.fails(
        &words,
        6,
        "answers.ndjson line 2: expected a status, or JSON",
    );

    let bench = [&["plugin", "bench"], &words[2..7], &["--calls", "10"]].concat();
    let rows = desk.json(&bench);
    let asked: Vec<_> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["asked"])
        .collect();
    assert_eq!(asked, ["classify", "classify"], "{rows}");
}
