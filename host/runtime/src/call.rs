//! One call of a plugin, from the permit to the answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap};

use crate::bindings::{classify, resolve, transform, types};
use crate::budget::{Budget, Denied, Exceeded};
use crate::error::{Fault, PluginError};
use crate::instance::{Instance, Metered, RESOLVE, TRANSFORM, WrongSignature};
use crate::limits::Limits;
use crate::meter::{Meter, WaitedTooLong};
use crate::plugin::{Code, Plugin};
use crate::question::{OwnedEndpoint, Question};
use crate::rollout::{Answers, named};
use crate::text;
use crate::types::{
    Call, CallResult, Choice, EndpointView, EventView, Mode, NewEndpoint, Request, Resolution,
    Verdict,
};

/// Characters kept of what a guest says about itself.
pub(crate) const MESSAGE: usize = 200;

const VERDICTS: Answers<Verdict> = Answers {
    exported: |exports| exports.transform,
    read: read_transform,
    differing: differing_verdicts,
};
const RESOLUTIONS: Answers<Resolution> = Answers {
    exported: |exports| exports.resolve,
    read: read_resolve,
    differing: differing_resolutions,
};

/// What it says, in the generated types.
pub(crate) enum Answer {
    Started,
    Transform(Result<transform::Verdict, types::Failure>),
    Resolve(Result<resolve::Resolution, types::Failure>),
    Classify(Result<classify::Verdict, types::Failure>),
    Sign(Result<Vec<(String, String)>, types::Failure>),
}

/// What a call used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) cpu: Duration,
    pub(crate) memory: usize,
}

impl Plugin {
    /// Ask what to send to an endpoint.
    pub async fn transform(
        &self,
        event: &EventView<'_>,
        endpoint: &EndpointView<'_>,
    ) -> CallResult<Verdict> {
        let question = || Question::transform(event, endpoint);
        let answer = self.ask_within(question(), &VERDICTS).await;
        self.compare(&VERDICTS, event.id, question, &answer, || unchanged(event));
        answer
    }

    /// Ask which endpoints an event goes to, beside or instead of those subscribed.
    pub async fn resolve(
        &self,
        event: &EventView<'_>,
        subscribed: &[EndpointView<'_>],
    ) -> CallResult<Resolution> {
        let question = || Question::resolve(event, subscribed);
        let answer = self.ask_within(question(), &RESOLUTIONS).await;
        self.compare(&RESOLUTIONS, event.id, question, &answer, none_chosen);
        answer
    }

    /// Tell a version that does not export `transform` of an event that passes it: where a shadow beside
    /// it does, what that makes of the event is compared with the event as it is.
    pub fn passed_without_transform(&self, event: &EventView<'_>, endpoint: &EndpointView<'_>) {
        let question = || Question::transform(event, endpoint);
        self.compare_alone(&VERDICTS, event, question, || unchanged(event));
    }

    /// The same for one that does not export `resolve`.
    pub fn passed_without_resolve(&self, event: &EventView<'_>, subscribed: &[EndpointView<'_>]) {
        let question = || Question::resolve(event, subscribed);
        self.compare_alone(&RESOLUTIONS, event, question, none_chosen);
    }

    /// Start an instance and ask it nothing.
    pub(crate) async fn try_start(&self) -> Result<Cost, Fault> {
        let wait = self.shared.config.place_wait;
        let (started, cost) = self.run(Question::Start, wait, |_, _| Ok(())).await;
        started.map(|()| cost)
    }

    /// Ask once there is a place for the call.
    pub(crate) async fn ask_within<T>(
        &self,
        question: Question,
        answers: &Answers<T>,
    ) -> CallResult<T> {
        let wait = self.shared.config.place_wait;
        self.ask(question, wait, answers.read).await
    }

    /// Ask, and wait for a place for the call no longer than this.
    pub(crate) async fn ask<T>(
        &self,
        question: Question,
        wait: Duration,
        read: impl FnOnce(Answer, &Limits) -> Result<T, Fault>,
    ) -> CallResult<T> {
        let began = Instant::now();
        let watched = self.probation.get().zip(question.event_id());
        let watched = watched.map(|(probation, event)| (probation, event.to_owned()));
        // On the heap: its 5 KiB would be part of every attempt's future, and be moved with it, for
        // tenants without a plugin too.
        let (value, Cost { cpu, memory }) = Box::pin(self.run(question, wait, read)).await;
        let took = began.elapsed();
        self.record.note(took, cpu, value.as_ref().err());
        if let Some((probation, event)) = watched {
            probation.note(&event, took, value.as_ref().err());
        }
        match value {
            Ok(value) => Ok(Call {
                value,
                digest: self.digest(),
                cpu,
                memory,
            }),
            Err(fault) => {
                let plugin = Arc::clone(&self.name);
                Err(PluginError {
                    plugin,
                    digest: self.digest(),
                    cpu,
                    memory,
                    fault,
                })
            }
        }
    }

    /// Run a question on an instance, within every limit, once there is a place for it.
    async fn run<T>(
        &self,
        question: Question,
        wait: Duration,
        read: impl FnOnce(Answer, &Limits) -> Result<T, Fault>,
    ) -> (Result<T, Fault>, Cost) {
        let limits = &self.limits;
        let wall = limits.wall_time();
        let pool = self.pools.of(question.event().map(|event| &*event.tenant));
        let permits = async {
            let own = pool.places.acquire().await;
            (own, Semaphore::acquire(&self.shared.calls).await)
        };
        // Held until the call ends.
        let Ok((Ok(_own), Ok(_shared))) = timeout(wait, permits).await else {
            return (Err(Fault::Exhausted), Cost::default());
        };
        let _ticking = self.shared.clock.keep_running();
        self.code.note_call();
        let Metered { instance, meter } = pool
            .idle
            .take(self.reuse)
            .unwrap_or_else(|| self.fresh(&pool));
        meter.restart(limits.cpu_time());
        let served = !matches!(question, Question::Start);
        let (code, own_limits) = (Arc::clone(&self.code), Arc::clone(limits));
        let call = run_on(code, instance, question, own_limits, Arc::clone(&meter));
        let is_long = self.runs_long.load(Ordering::Relaxed);
        let (patience, lane) = (limits.wait_time(), &self.shared.lane);
        let call = meter.measure(call, patience, lane, &pool.tenant, is_long);
        let (instance, value) = match timeout(wall, call).await {
            Ok(Ok((instance, answer))) => {
                if is_long != meter.was_stopped() {
                    self.runs_long.store(!is_long, Ordering::Relaxed);
                }
                (instance, answer.and_then(|answer| read(answer, limits)))
            }
            Ok(Err(WaitedTooLong)) => {
                let limit_ms = limits.wait_time_ms;
                (None, Err(Fault::WaitTime { limit_ms }))
            }
            Err(_) => {
                let limit_ms = limits.wall_time_ms;
                (None, Err(Fault::WallTime { limit_ms }))
            }
        };
        let cost = Cost {
            cpu: meter.spent(),
            memory: meter.memory(),
        };
        if let Some(instance) = instance.filter(|_| is_clean(&value)) {
            // Another call may have it, and its meter, from here on.
            let kept = Metered { instance, meter };
            pool.idle
                .put(kept, &self.shared, limits, self.reuse, served);
        }
        (value, cost)
    }
}

/// Whether an instance may serve again after this: that a guest says it failed is clean; to have trapped or
/// gone over a limit is not.
fn is_clean<T>(value: &Result<T, Fault>) -> bool {
    matches!(value, Ok(_) | Err(Fault::Guest { .. }))
}

/// Put a question to an instance. Owns it, and gives it back if there is an answer: one whose call ends
/// otherwise, or is dropped half-way, is gone.
async fn run_on(
    code: Arc<Code>,
    mut instance: Instance,
    question: Question,
    limits: Arc<Limits>,
    meter: Arc<Meter>,
) -> (Option<Instance>, Result<Answer, Fault>) {
    instance.begin_call(&limits);
    let answer = put(&code, &mut instance, &question).await;
    let state = instance.store.data_mut();
    meter.note_memory(state.budget.memory());
    state.end_call();
    state.signer = None;
    let answer = match (state.budget.exceeded(), answer) {
        (Some(exceeded), _) => Err(fault_of_use(exceeded, &limits)),
        (None, answer) => answer.map_err(|error| fault(&error, &meter, &state.budget, &limits)),
    };
    (answer.is_ok().then_some(instance), answer)
}

/// Put the question to the guest.
async fn put(
    code: &Code,
    instance: &mut Instance,
    question: &Question,
) -> wasmtime::Result<Answer> {
    let guest = instance.guest(&code.linked).await?;
    let store = &mut instance.store;
    Ok(match question {
        Question::Transform(event, endpoint) => match guest.transform {
            None => Answer::Started,
            Some(guest) => {
                let called = guest.call_transform(store, event.guest(), endpoint.guest());
                Answer::Transform(called.await?)
            }
        },
        Question::Resolve(event, subscribed) => match guest.resolve {
            None => Answer::Started,
            Some(guest) => {
                let subscribed: Vec<types::Endpoint<'_>> =
                    subscribed.iter().map(OwnedEndpoint::guest).collect();
                let called = guest.call_resolve(store, event.guest(), &subscribed);
                Answer::Resolve(called.await?)
            }
        },
        Question::Classify(event, endpoint, response, so_far) => match guest.classify {
            None => Answer::Started,
            Some(guest) => {
                let headers = response.headers();
                let (event, endpoint) = (event.guest(), endpoint.guest());
                let (response, so_far) = (response.guest(&headers), (*so_far).into());
                let called = guest.call_classify(store, event, endpoint, response, so_far);
                Answer::Classify(called.await?)
            }
        },
        Question::Sign(endpoint, request, signer) => match guest.sign {
            None => Answer::Started,
            Some(guest) => {
                store.data_mut().signer = Some(Arc::clone(signer));
                let headers = request.headers();
                let called = guest.call_sign(store, endpoint.guest(), request.guest(&headers));
                Answer::Sign(called.await?)
            }
        },
        Question::Start => Answer::Started,
    })
}

fn read_transform(answer: Answer, limits: &Limits) -> Result<Verdict, Fault> {
    match answer {
        Answer::Transform(answer) => {
            verdict(answer.map_err(|failure| guest_fault(&failure))?, limits)
        }
        _ => Err(Fault::NotExported {
            interface: TRANSFORM,
        }),
    }
}

fn read_resolve(answer: Answer, limits: &Limits) -> Result<Resolution, Fault> {
    match answer {
        Answer::Resolve(answer) => {
            resolution(answer.map_err(|failure| guest_fault(&failure))?, limits)
        }
        _ => Err(Fault::NotExported { interface: RESOLVE }),
    }
}

/// What is sent without a transform.
fn unchanged(event: &EventView<'_>) -> Verdict {
    Verdict::Deliver(Request {
        body: Bytes::copy_from_slice(event.payload),
        content_type: None,
        headers: Vec::new(),
    })
}

/// What is chosen without a resolver.
fn none_chosen() -> Resolution {
    Resolution {
        mode: Mode::Add,
        choices: Vec::new(),
    }
}

fn verdict(verdict: transform::Verdict, limits: &Limits) -> Result<Verdict, Fault> {
    let request = match verdict {
        transform::Verdict::Skip(reason) => {
            return Ok(Verdict::Skip(text::printable(&reason, MESSAGE)));
        }
        transform::Verdict::Deliver(request) => request,
    };
    if request.body.len() > limits.output_bytes {
        return Err(Fault::OutputTooLarge {
            limit_bytes: limits.output_bytes,
        });
    }
    check_headers(&request.headers, limits)?;
    Ok(Verdict::Deliver(Request {
        body: Bytes::from(request.body),
        content_type: request.content_type,
        headers: request.headers,
    }))
}

fn resolution(resolution: resolve::Resolution, limits: &Limits) -> Result<Resolution, Fault> {
    if resolution.choices.len() > limits.choices {
        return Err(Fault::TooManyChoices {
            limit: limits.choices,
        });
    }
    let mode = match resolution.mode {
        resolve::Mode::Add => Mode::Add,
        resolve::Mode::Replace => Mode::Replace,
    };
    let choices = resolution.choices.into_iter().map(|choice| match choice {
        resolve::Choice::Registered(id) => Ok(Choice::Registered(id)),
        resolve::Choice::New(endpoint) => {
            check_headers(&endpoint.headers, limits)?;
            Ok(Choice::New(NewEndpoint {
                url: endpoint.url,
                secret: endpoint.secret,
                headers: endpoint.headers,
                ordering_key: endpoint.ordering_key,
            }))
        }
    });
    Ok(Resolution {
        mode,
        choices: choices.collect::<Result<_, Fault>>()?,
    })
}

fn differing_verdicts(served: &Verdict, shadow: &Verdict) -> Vec<&'static str> {
    match (served, shadow) {
        (Verdict::Deliver(served), Verdict::Deliver(shadow)) => named([
            ("body", served.body != shadow.body),
            ("content-type", served.content_type != shadow.content_type),
            ("headers", served.headers != shadow.headers),
        ]),
        (Verdict::Skip(served), Verdict::Skip(shadow)) => named([("reason", served != shadow)]),
        _ => vec!["verdict"],
    }
}

fn differing_resolutions(served: &Resolution, shadow: &Resolution) -> Vec<&'static str> {
    named([
        ("mode", served.mode != shadow.mode),
        ("choices", served.choices != shadow.choices),
    ])
}

pub(crate) fn check_headers(headers: &[(String, String)], limits: &Limits) -> Result<(), Fault> {
    if headers.len() > limits.headers {
        return Err(Fault::TooManyHeaders {
            limit: limits.headers,
        });
    }
    Ok(())
}

pub(crate) fn guest_fault(failure: &types::Failure) -> Fault {
    let message = text::printable(&failure.message, MESSAGE);
    Fault::Guest {
        retryable: failure.retryable,
        message,
    }
}

fn fault_of_use(exceeded: Exceeded, limits: &Limits) -> Fault {
    match exceeded {
        Exceeded::Calls(import) => Fault::ImportCalls {
            import: import.name(),
            limit: limits.import_calls,
        },
        Exceeded::Random => Fault::RandomBytes {
            limit_bytes: limits.random_bytes,
        },
    }
}

/// The class of what went wrong; the error's own text is never passed on.
fn fault(error: &wasmtime::Error, meter: &Meter, budget: &Budget, limits: &Limits) -> Fault {
    if meter.was_stopped() {
        return Fault::CpuTime {
            limit_ms: limits.cpu_time_ms,
        };
    }
    if let Some(WrongSignature(interface)) = error.downcast_ref() {
        return Fault::Signature { interface };
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return Fault::Exhausted;
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref() {
        return too_many("resource handles", limits.handles);
    }
    match budget.denied() {
        Some(Denied::Memory) => {
            return Fault::Memory {
                limit_bytes: limits.memory_bytes,
            };
        }
        Some(Denied::TableElements) => return too_many("table elements", limits.table_elements),
        None => {}
    }
    if error.downcast_ref::<wasmtime_wasi::I32Exit>().is_some() {
        return Fault::Trap {
            class: "it ended its own process",
        };
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => Fault::Stack,
        Some(trap) => Fault::Trap {
            class: class_of(*trap),
        },
        None => fault_of_text(&format!("{error:#}"), limits),
    }
}

fn too_many(what: &'static str, limit: impl TryInto<usize>) -> Fault {
    Fault::Resources {
        what,
        limit: limit.try_into().unwrap_or(usize::MAX),
    }
}

/// For the few errors that wasmtime has no public type for; a test holds each.
fn fault_of_text(text: &str, limits: &Limits) -> Fault {
    let says = |words: &str| text.contains(words);
    if says("fuel allocated for hostcalls") {
        Fault::Lifted {
            limit_bytes: limits.lifted_bytes,
        }
    } else if says("store handle limit exceeded") {
        too_many("resource handles", limits.handles)
    } else if says("instance count too high") || says("core instances") {
        too_many("core instances", limits.instances)
    } else if says("table count too high") || says("tables") {
        too_many("tables", limits.tables)
    } else if says("memory count too high") || says("memories") {
        too_many("memories", limits.memories)
    } else {
        Fault::Trap {
            class: "it broke a rule of the component model",
        }
    }
}

fn class_of(trap: Trap) -> &'static str {
    match trap {
        Trap::UnreachableCodeReached => "unreachable code, such as a panic or an abort",
        Trap::MemoryOutOfBounds => "memory access out of bounds",
        Trap::TableOutOfBounds | Trap::IndirectCallToNull | Trap::BadSignature => {
            "a call through a bad pointer"
        }
        Trap::IntegerDivisionByZero => "division by zero",
        Trap::IntegerOverflow | Trap::BadConversionToInteger => "a number out of range",
        _ => "a rule of WebAssembly broken",
    }
}
