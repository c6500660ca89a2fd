//! Tables for people: plain text for the terminal, Markdown for a file.
//!
//! Promises: figures stand right, words left; a cell without a figure shows a dash.
//! Never: knows what the columns mean.

/// A table of words and figures.
#[derive(Debug, Clone, Default)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    words: usize,
}

/// What stands where there is no figure.
pub const NONE: &str = "–";

impl Table {
    /// The first `words` columns hold words and stand left.
    pub fn new<S: Into<String>>(words: usize, head: impl IntoIterator<Item = S>) -> Self {
        Self {
            head: head.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
            words,
        }
    }

    /// Adds a row; what is missing at its end becomes a dash.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<String> = cells.into_iter().take(self.head.len()).collect();
        cells.resize(self.head.len(), NONE.into());
        self.rows.push(cells);
    }

    /// For the terminal.
    pub fn text(&self) -> String {
        let widths = self.widths();
        let mut out = String::new();
        for row in std::iter::once(&self.head).chain(&self.rows) {
            let cells: Vec<String> = (0..row.len())
                .map(|at| self.padded(&row[at], at, widths[at]))
                .collect();
            out.push_str(cells.join("  ").trim_end());
            out.push('\n');
        }
        out
    }

    /// For a file.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule: Vec<String> = (0..self.head.len())
            .map(|at| if at < self.words { "---" } else { "---:" }.into())
            .collect();
        let mut out = line(&self.head) + &line(&rule);
        for row in &self.rows {
            out.push_str(&line(row));
        }
        out
    }

    fn widths(&self) -> Vec<usize> {
        (0..self.head.len())
            .map(|at| {
                std::iter::once(&self.head)
                    .chain(&self.rows)
                    .map(|row| row[at].chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect()
    }

    fn padded(&self, cell: &str, at: usize, width: usize) -> String {
        if at < self.words {
            format!("{cell:<width$}")
        } else {
            format!("{cell:>width$}")
        }
    }
}

/// A figure with as many places as are worth reading: three digits or so.
pub fn figure(value: Option<f64>) -> String {
    match value {
        None => NONE.into(),
        Some(v) if !v.is_finite() => NONE.into(),
        Some(v) if v.abs() >= 100.0 => format!("{v:.0}"),
        Some(v) if v.abs() >= 10.0 => format!("{v:.1}"),
        Some(v) if v.abs() >= 1.0 || v == 0.0 => format!("{v:.2}"),
        Some(v) => format!("{v:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(1, ["server", "messages/s"]);
        table.row(["postfix".into(), figure(Some(940.4))]);
        table.row(["x".into()]);
        table
    }

    #[test]
    fn text_is_aligned() {
        assert_eq!(
            sample().text(),
            "server   messages/s\npostfix         940\nx                 –\n"
        );
    }

    #[test]
    fn markdown_has_a_rule() {
        assert_eq!(
            sample().markdown(),
            "| server | messages/s |\n| --- | ---: |\n| postfix | 940 |\n| x | – |\n"
        );
    }

    #[test]
    fn figures_have_about_three_digits() {
        let cases = [
            (Some(0.0), "0.00"),
            (Some(0.0123), "0.012"),
            (Some(1.5), "1.50"),
            (Some(42.44), "42.4"),
            (Some(12345.6), "12346"),
            (Some(f64::NAN), NONE),
            (None, NONE),
        ];
        for (value, words) in cases {
            assert_eq!(figure(value), words);
        }
    }
}
