//! Figures, their table and their JSON.

use std::fmt;

use serde::Serialize;

/// All figures of a run, in order.
#[derive(Default, Serialize)]
pub struct Report {
    figures: Vec<Figure>,
}

/// One figure: a median, and between what it lay.
#[derive(Serialize)]
pub struct Figure {
    pub scenario: String,
    pub what: String,
    pub unit: &'static str,
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Report {
    /// Adds what the rounds gave, and prints it at once.
    pub fn add(&mut self, scenario: &str, what: &str, unit: &'static str, values: &[f64]) {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let figure = Figure {
            scenario: scenario.into(),
            what: what.into(),
            unit,
            median: sorted[sorted.len() / 2],
            min: sorted[0],
            max: sorted[sorted.len() - 1],
        };
        eprintln!("{figure}");
        self.figures.push(figure);
    }

    /// The figures called `what`, each with its scenario's name, in order.
    pub fn named(&self, what: &str) -> impl Iterator<Item = &Figure> {
        self.figures.iter().filter(move |figure| figure.what.starts_with(what))
    }

    /// The figure called `what` of this scenario.
    pub fn find(&self, scenario: &str, what: &str) -> Option<&Figure> {
        self.named(what).find(|figure| figure.scenario == scenario)
    }

    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|json| json + "\n")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.figures.iter().try_for_each(|figure| writeln!(f, "{figure}"))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: f64| {
            if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
        };
        write!(
            f,
            "{:<22} {:<34} {:>9} {}",
            self.scenario,
            self.what,
            number(self.median),
            self.unit
        )?;
        if self.min < self.max {
            write!(f, "  [{} .. {}]", number(self.min), number(self.max))?;
        }
        Ok(())
    }
}
