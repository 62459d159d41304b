//! Misbehaves in the way that the configuration key `behaviour` names.

#![allow(clippy::pedantic, reason = "what it does is wrong on purpose")]

wit_bindgen::generate!({ path: "../../../wit/1.0.0", world: "plugin" });

use std::cell::Cell;
use std::hint::black_box;
use std::time::Duration;

use wasip2::clocks::monotonic_clock;
use wasip2::random::random::get_random_bytes;

use exports::wasmhook::plugin::resolve::{self, Choice, Mode, NewEndpoint, Resolution};
use exports::wasmhook::plugin::transform::{self, Verdict};
use wasmhook::plugin::types::{Endpoint, Event, Failure, Request};
use wasmhook::plugin::{config, log};

struct Hostile;

std::thread_local! {
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

impl transform::Guest for Hostile {
    fn transform(event: Event, endpoint: Endpoint) -> Result<Verdict, Failure> {
        let calls = CALLS.with(|calls| calls.replace(calls.get() + 1) + 1);
        let payload = String::from_utf8_lossy(&event.payload).into_owned();
        match config::get("behaviour").as_deref().unwrap_or("count") {
            "count" => deliver(calls.to_string().into_bytes()),
            "echo" | "trick-url" => deliver(event.payload),
            "spin" => loop {
                black_box(calls);
            },
            "sleep" => {
                std::thread::sleep(Duration::from_secs(3600));
                deliver(event.payload)
            }
            "print-and-sleep" => {
                eprint!("going to {payload}");
                std::thread::sleep(Duration::from_secs(3600));
                deliver(event.payload)
            }
            // Never waits long, and never ends waiting.
            "doze" => loop {
                std::thread::sleep(Duration::from_millis(5));
            },
            // Bulk memory instructions, within which nothing looks at the clock.
            "copy-memory" => {
                let half = 24 << 20;
                let mut hoard = vec![1_u8; 2 * half];
                loop {
                    black_box(&mut hoard).copy_within(..half, half);
                }
            }
            "hog" => {
                let mut hoard: Vec<Vec<u8>> = Vec::new();
                loop {
                    // Not written to: on a busy machine that may reach the limit of time first.
                    hoard.push(black_box(Vec::with_capacity(1 << 20)));
                }
            }
            // Keeps a little of each call.
            "leak" => {
                std::mem::forget(black_box(vec![1_u8; 4 << 20]));
                deliver(calls.to_string().into_bytes())
            }
            "leak-handles" => loop {
                std::mem::forget(monotonic_clock::subscribe_duration(1));
            },
            "leak-some-handles" => {
                for _ in 0..100 {
                    std::mem::forget(monotonic_clock::subscribe_duration(1));
                }
                deliver(calls.to_string().into_bytes())
            }
            "flood-clock" => loop {
                black_box(monotonic_clock::now());
            },
            "flood-random" => loop {
                black_box(get_random_bytes(1024));
            },
            "huge-random" => deliver(get_random_bytes(1 << 40)),
            "panic" => panic!("could not handle {payload}"),
            "exit" => std::process::exit(3),
            "recurse" => deliver(vec![recurse(1)]),
            "big-body" => deliver(vec![b'x'; 2 << 20]),
            "many-headers-on-third" if calls != 3 => deliver(calls.to_string().into_bytes()),
            "many-headers" | "many-headers-on-third" => Ok(Verdict::Deliver(Request {
                body: event.payload,
                content_type: None,
                headers: (0..65).map(|n| (format!("x-{n}"), n.to_string())).collect(),
            })),
            "huge-header" => header("x-note", &"x".repeat(2 << 20), event.payload),
            "split-header" => header("x-note", "a\r\nX-Injected: b", event.payload),
            "host-header" => header("Host", "internal.test", event.payload),
            "signature-header" => header("Webhook-Signature", "v1,AAAA", event.payload),
            "log-once" => {
                log::log(log::Level::Info, "seen once");
                deliver(event.payload)
            }
            "log-much" => {
                for n in 0..200 {
                    log::log(log::Level::Debug, &format!("line {n}"));
                }
                deliver(event.payload)
            }
            "flood-log" => {
                for _ in 0..100_000 {
                    log::log(log::Level::Error, "a line\nand \u{1b}[31manother");
                }
                deliver(event.payload)
            }
            "big-log" => {
                log::log(log::Level::Error, &"x".repeat(8 << 20));
                deliver(event.payload)
            }
            "flood-print" => {
                for _ in 0..100_000 {
                    println!("{payload}");
                }
                deliver(event.payload)
            }
            "print" => {
                for _ in 0..200 {
                    println!("{payload}");
                    eprintln!("{payload}");
                }
                deliver(event.payload)
            }
            "trap-on-third" if calls == 3 => panic!("third"),
            "trap-on-third" => deliver(calls.to_string().into_bytes()),
            "fail" => Err(Failure {
                retryable: true,
                message: format!("no\tluck\u{1b}[0m {}", "long ".repeat(100)),
            }),
            "refuse" => Err(Failure {
                retryable: false,
                message: "never".to_owned(),
            }),
            "skip" => Ok(Verdict::Skip(endpoint.id)),
            "look-around" => deliver(look_around().into_bytes()),
            other => Err(Failure {
                retryable: false,
                message: format!("unknown: {other}"),
            }),
        }
    }
}

impl resolve::Guest for Hostile {
    fn resolve(_event: Event, subscribed: Vec<Endpoint>) -> Result<Resolution, Failure> {
        match config::get("behaviour").as_deref().unwrap_or_default() {
            "many-choices" => Ok(Resolution {
                mode: Mode::Add,
                choices: (0..1000)
                    .map(|n| Choice::Registered(n.to_string()))
                    .collect(),
            }),
            "new-endpoint" => Ok(Resolution {
                mode: Mode::Replace,
                choices: vec![Choice::New(NewEndpoint {
                    url: "https://example.test/hook".to_owned(),
                    secret: "main".to_owned(),
                    headers: vec![("x-shard".to_owned(), "7".to_owned())],
                    ordering_key: Some("customer-1".to_owned()),
                })],
            }),
            "trick-url" => Ok(Resolution {
                mode: Mode::Replace,
                choices: vec![Choice::New(NewEndpoint {
                    url: config::get("url").unwrap_or_default(),
                    secret: "main".to_owned(),
                    headers: Vec::new(),
                    ordering_key: None,
                })],
            }),
            "spin-resolve" => loop {
                black_box(&subscribed);
            },
            "nowhere" => Ok(Resolution {
                mode: Mode::Replace,
                choices: Vec::new(),
            }),
            _ => Ok(Resolution {
                mode: Mode::Add,
                choices: subscribed
                    .into_iter()
                    .map(|e| Choice::Registered(e.id))
                    .collect(),
            }),
        }
    }
}

/// What of the host's world can be seen: it ought to be nothing.
fn look_around() -> String {
    let files = std::fs::read_dir("/").map_or(0, Iterator::count);
    let passwd = std::fs::read("/etc/passwd").is_ok();
    let network = std::net::TcpStream::connect("127.0.0.1:80")
        .map_err(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
    format!(
        "args {} env {} files {files} passwd {passwd} connected {}",
        std::env::args().count(),
        std::env::vars().count(),
        matches!(network, Ok(_) | Err(true)),
    )
}

#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u8 {
    let here = [depth; 64];
    recurse(black_box(here)[0] + 1).wrapping_add(here[1] as u8)
}

fn header(name: &str, value: &str, body: Vec<u8>) -> Result<Verdict, Failure> {
    Ok(Verdict::Deliver(Request {
        body,
        content_type: None,
        headers: vec![(name.to_owned(), value.to_owned())],
    }))
}

fn deliver(body: Vec<u8>) -> Result<Verdict, Failure> {
    Ok(Verdict::Deliver(Request {
        body,
        content_type: None,
        headers: Vec::new(),
    }))
}

export!(Hostile);
