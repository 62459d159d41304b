//! Name lookups, a few at a time for each tenant.
//!
//! The machine's resolver takes a thread for each name until it answers or gives up, which with a dead name
//! server takes tens of seconds, whether or not anybody still waits. All callers share these threads. So
//! each tenant has a few lookups under way at most, and waits for its own; and what several want of one name
//! is asked once.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;
use wasmhook_core::TenantId;

/// Lookups under way for one tenant. Those that answer take milliseconds, so a few are enough for hundreds of
/// new connections a second; those that do not hold as many of the threads, of which there are 512.
pub(crate) const PER_TENANT: usize = 8;
/// Tenants without a lookup are forgotten when there are so many.
const MANY: usize = 1000;

tokio::task_local! {
    /// For whom a request is made: the HTTP library tells its resolver the name only.
    pub(crate) static ASKING: TenantId;
}

/// The addresses of a name; `None` when the lookup failed.
type Answer = Option<Arc<[SocketAddr]>>;
/// How a name is looked up; may block.
type Ask = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Lookups under way.
pub(crate) struct Lookups {
    ask: Arc<Ask>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: HashMap<String, Shared<BoxFuture<'static, Answer>>>,
    tenants: HashMap<TenantId, Arc<Semaphore>>,
}

impl Lookups {
    /// As the machine looks names up.
    pub(crate) fn new() -> Arc<Self> {
        // Port 0 stands for the port of the URL.
        Self::by(|name| Ok((name, 0).to_socket_addrs()?.collect()))
    }

    /// By a way of one's own.
    pub(crate) fn by(
        ask: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            ask: Arc::new(ask),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The places of a tenant. What is asked for no tenant has its own.
    fn places(&self, tenant: Option<&TenantId>) -> Arc<Semaphore> {
        let new = || Arc::new(Semaphore::new(PER_TENANT));
        let Some(tenant) = tenant else {
            return new();
        };
        let tenants = &mut self.state().tenants;
        if tenants.len() >= MANY && !tenants.contains_key(tenant) {
            tenants.retain(|_, places| places.available_permits() < PER_TENANT);
        }
        Arc::clone(tenants.entry(tenant.clone()).or_insert_with(new))
    }

    /// How many lookups more a tenant may have under way.
    #[cfg(test)]
    pub(crate) fn free(&self, tenant: &TenantId) -> usize {
        self.places(Some(tenant)).available_permits()
    }

    /// Looks a name up for a tenant.
    pub(crate) async fn look_up(self: &Arc<Self>, tenant: Option<&TenantId>, name: &str) -> Answer {
        let running = self.state().running.get(name).cloned();
        if let Some(running) = running {
            return running.await;
        }
        let places = self.places(tenant);
        // Fails only when it is closed, which nobody does.
        let place = places.acquire_owned().await.ok()?;
        let running = {
            let mut state = self.state();
            if let Some(running) = state.running.get(name) {
                running.clone()
            } else {
                let ask = Arc::clone(&self.ask);
                let asked = name.to_owned();
                let asking = tokio::task::spawn_blocking(move || {
                    let answer = ask(&asked);
                    // The thread is free now, and not when whoever asked gives up.
                    drop(place);
                    answer.ok().map(Arc::from)
                });
                let (lookups, asked) = (Arc::clone(self), name.to_owned());
                // In a task of its own, for the name must be forgotten though nobody waits any more.
                let answering = tokio::spawn(async move {
                    let answer = asking.await.ok().flatten();
                    lookups.state().running.remove(&asked);
                    answer
                });
                let running = async move { answering.await.ok().flatten() }
                    .boxed()
                    .shared();
                state.running.insert(name.to_owned(), running.clone());
                running
            }
        };
        running.await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// How long something may take that has to happen.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A name server that does not answer for names that begin with `dead` until it is told to.
    #[derive(Default)]
    struct Server {
        asked: AtomicUsize,
        dead: AtomicUsize,
        open: (Mutex<bool>, std::sync::Condvar),
    }

    impl Server {
        fn lookups(self: &Arc<Self>) -> Arc<Lookups> {
            let server = Arc::clone(self);
            Lookups::by(move |name| {
                server.asked.fetch_add(1, Ordering::SeqCst);
                if name.starts_with("dead") {
                    server.dead.fetch_add(1, Ordering::SeqCst);
                    let (open, opened) = &server.open;
                    let open = open.lock().unwrap();
                    drop(opened.wait_while(open, |open| !*open).unwrap());
                }
                Ok(vec![SocketAddr::from(([192, 0, 2, 1], 0))])
            })
        }

        fn open(&self) {
            *self.open.0.lock().unwrap() = true;
            self.open.1.notify_all();
        }
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    #[tokio::test]
    async fn dead_names_of_a_tenant_hold_up_no_other_tenant() {
        let server = Arc::new(Server::default());
        let lookups = server.lookups();
        // As many threads as there are would be waiting for these.
        let mut stuck = Vec::new();
        for n in 0..600 {
            let lookups = Arc::clone(&lookups);
            stuck.push(tokio::spawn(async move {
                let name = format!("dead{n}.example");
                // Whoever asks gives up before the name server does.
                let acme = tenant("acme");
                let asking = lookups.look_up(Some(&acme), &name);
                timeout(Duration::from_millis(50), asking).await.is_err()
            }));
        }
        for stuck in stuck {
            assert!(stuck.await.unwrap());
        }
        let globex = tenant("globex");
        for n in 0..20 {
            let name = format!("good{n}.example");
            let asking = lookups.look_up(Some(&globex), &name);
            assert!(timeout(PATIENCE, asking).await.unwrap().is_some());
        }
        assert_eq!(server.dead.load(Ordering::SeqCst), PER_TENANT);
        // Nor are they given up: the places come back with the threads.
        server.open();
        let acme = tenant("acme");
        let asking = lookups.look_up(Some(&acme), "good.example");
        assert!(timeout(PATIENCE, asking).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_name_is_asked_once_for_all_who_want_it_at_a_time() {
        let server = Arc::new(Server::default());
        let lookups = server.lookups();
        let waiting: Vec<_> = (0..100)
            .map(|n| {
                let lookups = Arc::clone(&lookups);
                let tenant = tenant(&format!("tenant{}", n % 3));
                tokio::spawn(async move { lookups.look_up(Some(&tenant), "dead.example").await })
            })
            .collect();
        while server.asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        server.open();
        let mut answers = HashSet::new();
        for waiting in waiting {
            answers.insert(waiting.await.unwrap());
        }
        assert_eq!(answers.len(), 1);
        assert_eq!(server.asked.load(Ordering::SeqCst), 1);
        // Nothing is remembered.
        lookups.look_up(None, "dead.example").await;
        assert_eq!(server.asked.load(Ordering::SeqCst), 2);
        assert!(lookups.state().running.is_empty());
    }
}
