//! The table of faults, the figures and the verdict.

use std::time::Duration;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::run::End;
use crate::verdict::Account;
use crate::workload::Store;

/// One line of the table: all faults of one name on one site.
#[derive(Default)]
struct Line {
    times: usize,
    longest: Duration,
    acknowledged: u64,
    accepted: u64,
    duplicates: usize,
    slowest: Duration,
}

pub(crate) fn print(ends: &[End], seed: u64) {
    let happenings = ends.iter().flat_map(|end| &end.happenings);
    let mut lines: Vec<(String, &str, Line)> = Vec::new();
    for happening in happenings {
        let (store, name) = (happening.store.to_string(), happening.fault.name());
        let place = lines.iter().position(|(s, n, _)| (s, *n) == (&store, name));
        let place = place.unwrap_or_else(|| {
            lines.push((store, name, Line::default()));
            lines.len() - 1
        });
        let line = &mut lines[place].2;
        line.times += 1;
        line.longest = line.longest.max(happening.lasted());
        line.acknowledged += u64::from(happening.acknowledged);
        line.accepted += u64::from(happening.accepted);
        line.duplicates += happening.duplicates;
        line.slowest = line.slowest.max(happening.recovery);
    }
    lines.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    println!("{}", table(&lines));
    for end in ends {
        if let Some(account) = &end.account {
            tell(end.store, account);
        }
    }
    for end in ends {
        for (what, count, example) in &end.problems.0 {
            println!(
                "BROKEN  {}: {what}: {count} times, first {example}",
                end.store
            );
        }
    }
    if ends.iter().all(End::is_good) {
        println!("nothing vanished, and everything that came twice is explained; seed {seed}");
    } else {
        println!(
            "the promise is broken; with `--seed {seed}` the same command makes the same faults"
        );
    }
}

fn tell(store: Store, site: &Account) {
    println!(
        "{store}: {} events acknowledged, {} deliveries: {} succeeded, {} dead letters, {} finished and \
         removed since; {} in order, in {} sequences, {} of them made again; accepted again: {} after a \
         broken connection, {} after a broken lease",
        site.events,
        site.deliveries,
        site.succeeded,
        site.dead_letters,
        site.removed,
        site.ordered,
        site.sequences,
        site.made_again,
        site.broken_connections,
        site.broken_leases
    );
}

fn table(lines: &[(String, &str, Line)]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([
        "site",
        "fault",
        "times",
        "longest",
        "acknowledged",
        "accepted",
        "again",
        "slowest recovery",
    ]);
    for (store, name, line) in lines {
        table.add_row([
            store.clone(),
            (*name).to_owned(),
            line.times.to_string(),
            seconds(line.longest),
            line.acknowledged.to_string(),
            line.accepted.to_string(),
            line.duplicates.to_string(),
            seconds(line.slowest),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
