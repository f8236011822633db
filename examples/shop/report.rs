//! The table at the end of a run.

use std::fmt::Write as _;

/// Rows of `what`, `value`, and whether the value is as it must be (`None`: it cannot be wrong).
#[derive(Default)]
pub struct Report {
    rows: Vec<(String, String, Option<bool>)>,
}

impl Report {
    pub fn note(&mut self, what: &str, value: impl ToString) {
        self.rows.push((what.to_owned(), value.to_string(), None));
    }

    pub fn check(&mut self, what: &str, value: impl ToString, holds: bool) {
        self.rows
            .push((what.to_owned(), value.to_string(), Some(holds)));
    }

    pub fn holds(&self) -> bool {
        self.rows.iter().all(|(_, _, holds)| holds.unwrap_or(true))
    }

    pub fn render(&self) -> String {
        let width = self
            .rows
            .iter()
            .map(|(what, _, _)| what.chars().count())
            .max()
            .unwrap_or(0);
        let mut text = String::new();
        for (what, value, holds) in &self.rows {
            let mark = match holds {
                Some(true) => "ok  ",
                Some(false) => "FAIL",
                None => "    ",
            };
            let _infallible = writeln!(text, "  {mark} {what:width$}  {value}");
        }
        text
    }
}
