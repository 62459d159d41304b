//! The figures: printed as they come, kept as one flat JSON object.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;

/// Figures by key.
#[derive(Default)]
pub(crate) struct Results {
    figures: BTreeMap<String, f64>,
}

impl Results {
    /// What earlier runs of single parts left, to be merged into.
    pub(crate) fn load() -> Self {
        let figures = std::fs::read(file())
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self { figures }
    }

    /// Notes one figure, rounded to four significant places behind the point.
    pub(crate) fn set(&mut self, key: &str, value: f64) {
        let rounded = (value * 10_000.0).round() / 10_000.0;
        println!("{key:<32}{rounded}");
        self.figures.insert(key.to_owned(), rounded);
    }

    /// A figure of this or an earlier run.
    pub(crate) fn get(&self, key: &str) -> Option<f64> {
        self.figures.get(key).copied()
    }

    /// Notes a rate and its ratio to the floor.
    pub(crate) fn rate(&mut self, name: &str, per_second: f64) {
        self.set(&format!("{name}_per_s"), per_second);
        if let Some(floor) = self.get("floor_per_s") {
            self.set(&format!("{name}_ratio"), per_second / floor);
        }
    }

    /// Notes the middle of what each figure was in some rounds.
    pub(crate) fn add_middle(&mut self, rounds: &[Self]) {
        let mut figures: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (key, value) in rounds.iter().flat_map(|round| &round.figures) {
            figures.entry(key).or_default().push(*value);
        }
        for (key, mut values) in figures {
            values.sort_by(f64::total_cmp);
            self.set(key, percentile(&values, 0.5));
        }
    }

    /// Writes `target/bench/latest.json`.
    pub(crate) fn save(&self) -> anyhow::Result<()> {
        let file = file();
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&file, serde_json::to_vec_pretty(&self.figures)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        println!("written to {}", file.display());
        Ok(())
    }
}

fn file() -> PathBuf {
    crate::system::root().join("target/bench/latest.json")
}

/// The value below which `share` (0.0 to 1.0) of the sorted values lie.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into a slice of measurements"
    )]
    let index = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}
