//! Long runs of lines (a whole message, for example) cut to their head and tail.

use std::collections::VecDeque;

/// One run of lines at a time.
pub struct Abridged {
    head: usize,
    tail: usize,
    lines: usize,
    kept: VecDeque<String>,
}

impl Abridged {
    /// Of each run the first `head` and the last `tail` lines are shown.
    pub fn new(head: usize, tail: usize) -> Self {
        Self {
            head,
            tail,
            lines: 0,
            kept: VecDeque::new(),
        }
    }

    /// Takes a line of the run; true when it is to be shown at once.
    pub fn take(&mut self, line: &str) -> bool {
        self.lines += 1;
        if self.lines <= self.head {
            return true;
        }
        self.kept.push_back(line.to_owned());
        if self.kept.len() > self.tail {
            self.kept.pop_front();
        }
        false
    }

    /// Ends the run: how many lines were left out, and those that end it.
    pub fn end(&mut self) -> (usize, Vec<String>) {
        let left_out = self.lines.saturating_sub(self.head + self.tail);
        self.lines = 0;
        (left_out, self.kept.drain(..).collect())
    }
}

/// What is said in place of the lines that were left out.
pub fn left_out(lines: usize) -> String {
    format!("{lines} lines are not shown here")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_tail_are_kept() {
        let mut run = Abridged::new(2, 3);
        for (lines, left) in [(1, 0), (2, 0), (4, 0), (5, 0), (6, 1), (50, 45)] {
            let shown = (0..lines).filter(|n| run.take(&n.to_string())).count();
            let (left_out, tail) = run.end();
            assert_eq!(shown, lines.min(2));
            assert_eq!(left_out, left, "{lines}");
            assert_eq!(shown + left_out + tail.len(), lines);
            if lines > 2 {
                assert_eq!(tail.last(), Some(&(lines - 1).to_string()));
            }
        }
    }
}
