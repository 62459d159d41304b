//! The stream that producers push to: what is read once, taken over, and found again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmhook_core::EventDraft;
use wasmhook_store::redis::RedisStream;
use wasmhook_store::{EventStream as _, StoreError, StreamEntry};
use wasmhook_testing::{Durability, RedisServer};

use crate::support::{config, until};

const WAIT: Duration = Duration::from_millis(200);

async fn open(server: &RedisServer, consumer: &str) -> RedisStream {
    let mut config = config(server);
    config.consumer = consumer.to_owned();
    config.claim_after = Duration::from_millis(100);
    RedisStream::connect(config).await.unwrap()
}

fn draft(n: usize) -> EventDraft {
    EventDraft {
        id: format!("evt_{n}"),
        tenant: "acme".to_owned(),
        event_type: "a.b".to_owned(),
        payload: Bytes::from(format!("{{ \"n\" : {n}.0 }}")),
        occurred_at: n
            .is_multiple_of(2)
            .then(|| "2026-01-31T09:30:00Z".to_owned()),
        deliver_at: n
            .is_multiple_of(3)
            .then(|| "2999-01-31T09:30:00Z".to_owned()),
        ordering_key: n.is_multiple_of(5).then(|| format!("order-{n} ☂")),
        fault: None,
    }
}

fn length(server: &RedisServer) -> usize {
    server.ask(&["XLEN", "wasmhook:events"]).unwrap()
}

#[tokio::test]
async fn what_is_pushed_is_read_once_and_removed() {
    let server = RedisServer::start().unwrap();
    let (one, two) = (open(&server, "one").await, open(&server, "two").await);
    one.push(&[draft(1), draft(2), draft(3)]).await.unwrap();
    let first = one.read(2, WAIT).await.unwrap();
    let second = two.read(10, WAIT).await.unwrap();
    assert_eq!((first.len(), second.len()), (2, 1));
    for (n, entry) in first.iter().chain(&second).enumerate() {
        let expected = draft(n + 1);
        assert_eq!(entry.draft.id, expected.id);
        assert_eq!(entry.draft.tenant, expected.tenant);
        assert_eq!(entry.draft.event_type, expected.event_type);
        assert_eq!(entry.draft.payload, expected.payload);
        assert_eq!(entry.draft.occurred_at, expected.occurred_at);
    }
    let ids: Vec<_> = first.into_iter().chain(second).map(|e| e.id).collect();
    one.acknowledge(&ids).await.unwrap();
    one.acknowledge(&ids).await.unwrap();
    one.acknowledge(&[]).await.unwrap();
    assert_eq!(length(&server), 0);
    assert!(one.read(10, WAIT).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_waits_for_what_comes() {
    let server = RedisServer::start().unwrap();
    let (reader, writer) = (open(&server, "one").await, open(&server, "two").await);
    let reading = tokio::spawn(async move {
        let start = Instant::now();
        loop {
            let entries = reader.read(10, Duration::from_secs(4)).await.unwrap();
            if !entries.is_empty() {
                return entries;
            }
            assert!(start.elapsed() < Duration::from_secs(20));
        }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    writer.push(&[draft(1)]).await.unwrap();
    assert_eq!(reading.await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_restarted_host_goes_on_with_its_own() {
    let server = RedisServer::start().unwrap();
    let before = open(&server, "one").await;
    before.push(&[draft(1), draft(2), draft(3)]).await.unwrap();
    let read = before.read(10, WAIT).await.unwrap();
    before.acknowledge(&[read[0].id]).await.unwrap();
    drop(before);
    let after = open(&server, "one").await;
    after.push(&[draft(4)]).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        for entry in after.read(1, WAIT).await.unwrap() {
            after.acknowledge(&[entry.id]).await.unwrap();
            seen.push(entry.draft.id);
        }
    }
    assert_eq!(seen, ["evt_2", "evt_3", "evt_4"]);
}

#[tokio::test]
async fn what_a_dead_host_left_is_taken_over() {
    let server = RedisServer::start().unwrap();
    let dead = open(&server, "dead").await;
    dead.push(&[draft(1), draft(2)]).await.unwrap();
    assert_eq!(dead.read(10, WAIT).await.unwrap().len(), 2);
    drop(dead);
    let heir = open(&server, "heir").await;
    let mut seen = 0;
    let start = Instant::now();
    while seen < 2 {
        let entries = heir.read(1, Duration::from_millis(50)).await.unwrap();
        for entry in entries {
            heir.acknowledge(&[entry.id]).await.unwrap();
            seen += 1;
        }
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    assert_eq!(length(&server), 0);
}

#[tokio::test]
async fn what_a_host_left_while_others_are_there_is_taken_over_after_a_while() {
    let server = RedisServer::start().unwrap();
    let (dead, heir) = (open(&server, "dead").await, open(&server, "heir").await);
    dead.push(&[draft(1), draft(2)]).await.unwrap();
    assert_eq!(dead.read(10, WAIT).await.unwrap().len(), 2);
    // It is under way for all that others know.
    assert!(heir.read(10, Duration::ZERO).await.unwrap().is_empty());
    let entries = until_read(&heir).await;
    assert_eq!(entries.len(), 2);
    heir.acknowledge(&[entries[0].id, entries[1].id])
        .await
        .unwrap();
    assert_eq!(length(&server), 0);
}

#[tokio::test]
async fn what_an_older_version_read_is_taken_over_and_forgotten() {
    let server = RedisServer::start().unwrap();
    let host = open(&server, "new").await;
    host.push(&[draft(1), draft(2), draft(3)]).await.unwrap();
    let key = "wasmhook:events";
    let read = |consumer| {
        let group = ["XREADGROUP", "GROUP", "wasmhook", consumer, "COUNT", "1"];
        let _: redis::Value = server
            .ask(&[&group[..], &["STREAMS", key, ">"]].concat())
            .unwrap();
    };
    read("old");
    // This host's own forerunner.
    read("new");
    let mut seen = BTreeSet::new();
    let start = Instant::now();
    loop {
        for entry in host.read(10, Duration::from_millis(20)).await.unwrap() {
            host.acknowledge(&[entry.id]).await.unwrap();
            seen.insert(entry.draft.id);
        }
        let pending: redis::Value = server.ask(&["XPENDING", key, "wasmhook"]).unwrap();
        let (pending, ..): (u64, redis::Value, redis::Value, redis::Value) =
            redis::from_redis_value(pending).unwrap();
        if seen.len() == 3 && pending == 0 {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{seen:?}");
    }
    assert_eq!(length(&server), 0);
}

#[tokio::test]
async fn entries_are_read_again_by_their_ids() {
    let server = RedisServer::start().unwrap();
    let host = open(&server, "one").await;
    host.push(&[draft(1), draft(2), draft(3)]).await.unwrap();
    let read = host.read(10, WAIT).await.unwrap();
    host.acknowledge(&[read[1].id]).await.unwrap();
    let ids: Vec<_> = read.iter().map(|entry| entry.id).collect();
    let again = host.reread(&ids).await.unwrap();
    let again: Vec<_> = again.into_iter().map(|e| (e.id, e.draft.id)).collect();
    let expected = [(ids[0], "evt_1".to_owned()), (ids[2], "evt_3".to_owned())];
    assert_eq!(again, expected);
    assert!(host.reread(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_lost_group_or_stream_is_made_again() {
    let server = RedisServer::start().unwrap();
    let stream = open(&server, "one").await;
    let destroy = ["XGROUP", "DESTROY", "wasmhook:events", "wasmhook"];
    let () = server.ask(&destroy).unwrap();
    stream.push(&[draft(1)]).await.unwrap();
    let entries = until_read(&stream).await;
    stream.acknowledge(&[entries[0].id]).await.unwrap();
    let () = server.ask(&["FLUSHALL"]).unwrap();
    assert!(stream.read(10, Duration::ZERO).await.unwrap().is_empty());
    stream.push(&[draft(2)]).await.unwrap();
    assert_eq!(until_read(&stream).await[0].draft.id, "evt_2");
}

async fn until_read(stream: &RedisStream) -> Vec<StreamEntry> {
    for _ in 0..20 {
        let entries = stream.read(10, WAIT).await.unwrap();
        if !entries.is_empty() {
            return entries;
        }
    }
    panic!("nothing comes");
}

#[tokio::test]
async fn odd_entries_become_drafts_that_validation_can_name() {
    let server = RedisServer::start().unwrap();
    let stream = open(&server, "one").await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut add = redis::cmd("XADD");
    add.arg("wasmhook:events")
        .arg("*")
        .arg("tenant")
        .arg("acme");
    add.arg("id").arg(&b"\xff\xfe"[..]);
    add.exec_async(&mut connection).await.unwrap();
    let entries = stream.read(10, WAIT).await.unwrap();
    assert_eq!(entries.len(), 1);
    let draft = &entries[0].draft;
    assert_eq!(draft.tenant, "acme");
    assert!(draft.event_type.is_empty() && draft.payload.is_empty());
    assert!(draft.occurred_at.is_none());
}

#[tokio::test]
async fn an_entry_with_a_field_that_is_unknown_or_comes_twice_is_refused_by_its_name() {
    let server = RedisServer::start().unwrap();
    let stream = open(&server, "one").await;
    let sound = [
        "XADD",
        "wasmhook:events",
        "*",
        "tenant",
        "acme",
        "type",
        "a.b",
        "id",
        "evt_1",
        "payload",
        "{}",
    ];
    let cases = [
        (["deliver-at", "hunter2"], "unknown field `deliver-at`;"),
        (["hunter2 hunter2", "1"], "an unknown field;"),
        (["id", "hunter2"], "field `id`: expected once, found again"),
        (
            ["tenant_id", "hunter2"],
            "field `tenant`: expected once, found again",
        ),
    ];
    for (field, _) in &cases {
        let _: String = server.ask(&[&sound[..], &field[..]].concat()).unwrap();
    }
    let entries = stream.read(10, WAIT).await.unwrap();
    assert_eq!(entries.len(), cases.len());
    for (entry, (_, words)) in entries.into_iter().zip(cases) {
        // What the list of refused events says of it.
        assert_eq!((&*entry.draft.id, &*entry.draft.tenant), ("evt_1", "acme"));
        let refused = entry.draft.accept(jiff::Timestamp::now(), 1024);
        let told = refused.unwrap_err().to_string();
        assert!(told.contains(words), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[tokio::test]
async fn deleted_entries_are_passed_over() {
    let server = RedisServer::start().unwrap();
    let before = open(&server, "one").await;
    before.push(&[draft(1), draft(2)]).await.unwrap();
    let read = before.read(10, WAIT).await.unwrap();
    drop(before);
    let () = server
        .ask(&["XDEL", "wasmhook:events", &read[0].id.to_string()])
        .unwrap();
    let after = open(&server, "one").await;
    let entries = after.read(10, WAIT).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].draft.id, "evt_2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_read_loses_nothing() {
    let server = RedisServer::start().unwrap();
    let (reader, writer) = (open(&server, "one").await, open(&server, "two").await);
    let mut seen = BTreeSet::new();
    for n in 0..20 {
        let reading = reader.read(10, Duration::from_secs(4));
        let pause = Duration::from_micros(n * 150);
        let _ = tokio::time::timeout(pause, async {
            let (entries, ()) = tokio::join!(reading, async {
                writer
                    .push(&[draft(usize::try_from(n).unwrap())])
                    .await
                    .unwrap();
            });
            for entry in entries.unwrap() {
                seen.insert(entry.draft.id);
            }
        })
        .await;
    }
    let pushed = length(&server);
    for _ in 0..5 {
        for entry in reader.read(100, WAIT).await.unwrap() {
            seen.insert(entry.draft.id);
        }
    }
    assert!(seen.len() >= pushed, "{} of {pushed}", seen.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_is_found_again() {
    let mut server = RedisServer::start_with(Durability::Always, &[]).unwrap();
    let stream = open(&server, "one").await;
    stream.push(&[draft(1)]).await.unwrap();
    assert!(stream.read(10, WAIT).await.unwrap().len() == 1);
    server.kill().unwrap();
    let error = stream.read(10, WAIT).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    server.restart().unwrap();
    let entries = until(|| stream.read(10, WAIT)).await;
    assert_eq!(entries.len(), 1, "its own entry comes first");
}

#[tokio::test]
async fn what_is_not_text_is_refused_and_not_mended() {
    let server = RedisServer::start().unwrap();
    let stream = open(&server, "one").await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let fields = [
        "id",
        "tenant",
        "type",
        "occurred_at",
        "deliver_at",
        "ordering_key",
    ];
    for broken in fields {
        let mut command = redis::cmd("XADD");
        command.arg("wasmhook:events").arg("*");
        command.arg("payload").arg("1");
        let sound = [("id", "evt_1"), ("tenant", "acme"), ("type", "a.b")];
        for (name, value) in sound.iter().filter(|(name, _)| *name != broken) {
            command.arg(name).arg(value);
        }
        command.arg(broken).arg(&b"a\xffb"[..]);
        let _: String = command.query_async(&mut connection).await.unwrap();
    }
    let entries = stream.read(10, WAIT).await.unwrap();
    assert_eq!(entries.len(), fields.len());
    for (entry, broken) in entries.into_iter().zip(fields) {
        let refused = entry.draft.accept(jiff::Timestamp::now(), 1024);
        let words = refused.unwrap_err().to_string();
        assert!(words.contains(broken), "{broken}: {words}");
    }
}
