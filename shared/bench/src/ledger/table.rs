//! Tables with a column for each scenario and a row for each figure.

use std::fmt::{self, Display, Formatter};

use super::simulation::Outcome;

/// Figure of an outcome as text.
type Figure = Box<dyn Fn(&Outcome) -> String>;

/// A table.
pub struct Table<'a> {
    title: &'static str,
    outcomes: &'a [Outcome],
    rows: Vec<(&'static str, Figure)>,
}

const NAME_WIDTH: usize = 50;
const COLUMN_WIDTH: usize = 15;

impl<'a> Table<'a> {
    /// Creates a table of `outcomes` without rows.
    pub fn new(title: &'static str, outcomes: &'a [Outcome]) -> Self {
        Self { title, outcomes, rows: Vec::new() }
    }

    /// Adds a row for a figure with `decimals`.
    pub fn row(self, name: &'static str, decimals: usize, figure: impl Fn(&Outcome) -> f64 + 'static) -> Self {
        self.text(name, move |outcome| format!("{:.decimals$}", figure(outcome)))
    }

    /// Adds a row for a share, in percent.
    pub fn percent(self, name: &'static str, figure: impl Fn(&Outcome) -> f64 + 'static) -> Self {
        self.text(name, move |outcome| format!("{:.2} %", 100.0 * figure(outcome)))
    }

    /// Adds a row.
    pub fn text(mut self, name: &'static str, figure: impl Fn(&Outcome) -> String + 'static) -> Self {
        self.rows.push((name, Box::new(figure)));
        self
    }
}

impl Display for Table<'_> {
    fn fmt(&self, out: &mut Formatter) -> fmt::Result {
        writeln!(out, "{}\n", self.title)?;
        write!(out, "{:<NAME_WIDTH$}", "")?;
        for outcome in self.outcomes {
            write!(out, "{:>COLUMN_WIDTH$}", outcome.name)?;
        }
        writeln!(out)?;
        for (name, figure) in &self.rows {
            write!(out, "{name:<NAME_WIDTH$}")?;
            for outcome in self.outcomes {
                write!(out, "{:>COLUMN_WIDTH$}", figure(outcome))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}
