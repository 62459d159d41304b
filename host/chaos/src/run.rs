//! The life of the sites, all at the same time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;

use crate::happening::Happening;
use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::producer::{Producers, Progress};
use crate::site::Site;
use crate::verdict::{self, Account, Problems};
use crate::workload::Store;

/// How long producers may go on being refused when all is well again: one that never succeeds is a
/// finding, not a hang.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is told how far everything is.
const NEWS: Duration = Duration::from_secs(60);

/// What came of a site.
pub(crate) struct End {
    pub(crate) store: Store,
    pub(crate) happenings: Vec<Happening>,
    /// None if it did not get to its end.
    pub(crate) account: Option<Account>,
    /// Each is a broken promise.
    pub(crate) problems: Problems,
}

impl End {
    /// Whether all promises were kept.
    pub(crate) fn is_good(&self) -> bool {
        self.account.is_some() && self.problems.0.is_empty()
    }
}

/// Runs all to their ends.
pub(crate) async fn run(plans: Vec<Plan>) -> anyhow::Result<Vec<End>> {
    let mut sites = JoinSet::new();
    let mut watched = Vec::new();
    for plan in plans {
        let ledger = Arc::new(Ledger::new(plan.events));
        let progress = Progress::new(plan.events);
        watched.push((plan.store, Arc::clone(&ledger), progress.clone()));
        // Each a task of its own, for some of what they do holds up a thread.
        sites.spawn(live(plan, ledger, progress));
    }
    let mut ends = Vec::new();
    let mut news = tokio::time::interval(NEWS);
    news.tick().await;
    loop {
        tokio::select! {
            end = sites.join_next() => {
                let Some(end) = end else {
                    break;
                };
                ends.push(end.context("a site's task ended by itself")?);
            }
            _ = news.tick() => tell(&watched),
        }
    }
    ends.sort_by_key(|end: &End| end.store as usize);
    Ok(ends)
}

fn tell(watched: &[(Store, Arc<Ledger>, Progress)]) {
    let minutes = watched
        .first()
        .map_or(0, |(_, ledger, _)| ledger.now().as_secs() / 60);
    let sites: Vec<_> = watched
        .iter()
        .map(|(store, ledger, progress)| {
            let (step, of) = progress.steps();
            let (acknowledged, all) = (ledger.acknowledged(), progress.events());
            format!("{store} {step} of {of} faults, {acknowledged} of {all} events")
        })
        .collect();
    eprintln!("after {minutes} min: {}", sites.join("; "));
}

/// The life of one site. What goes wrong with it is part of its end, so that the others' is seen.
async fn live(plan: Plan, ledger: Arc<Ledger>, progress: Progress) -> End {
    let mut end = End {
        store: plan.store,
        happenings: Vec::with_capacity(plan.steps.len()),
        account: None,
        problems: Problems::default(),
    };
    let mut site = match Site::start(plan.store, &ledger).await {
        Ok(site) => site,
        Err(error) => {
            end.problems.add("it does not start", format!("{error:#}"));
            return end;
        }
    };
    if let Err(error) = go_through(&plan, &mut site, &ledger, &progress, &mut end).await {
        let error = format!("{error:#}");
        eprintln!("{}: {error}", plan.store);
        end.problems.add("it does not get to its end", error);
    }
    if !end.problems.0.is_empty() {
        let folder = site.keep();
        println!("the logs of the {} site are kept in {folder}", site.store);
    }
    end
}

async fn go_through(
    plan: &Plan,
    site: &mut Site,
    ledger: &Arc<Ledger>,
    progress: &Progress,
    end: &mut End,
) -> anyhow::Result<()> {
    let producers = Producers::start(site, ledger, progress)?;
    site.endure(&plan.steps, progress, &mut end.happenings)
        .await?;
    eprintln!(
        "{}: all is well again; waiting for everything to be delivered",
        plan.store
    );
    producers.finish(PATIENCE).await;
    let account = verdict::judge(site, ledger, &mut end.happenings, &mut end.problems).await?;
    end.account = Some(account);
    Ok(())
}
