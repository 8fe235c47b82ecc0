//! How far it is: a bar on a terminal, a line per stage elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// How often the bar is drawn at most.
const DRAW_EVERY: Duration = Duration::from_millis(100);
const BAR_WIDTH: u64 = 30;

/// The progress of one stage after the other, on standard error.
pub(super) struct Progress {
    is_terminal: bool,
    stage: &'static str,
    done: u64,
    total: Option<u64>,
    drawn: Instant,
    began: Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let is_terminal = std::io::stderr().is_terminal();
        Self { is_terminal, stage: "", done: 0, total: None, drawn: now, began: now }
    }

    /// A stage begins, the last one ends.
    pub(super) fn stage(&mut self, stage: &'static str, total: Option<u64>) {
        self.end();
        (self.stage, self.done, self.total) = (stage, 0, total);
        self.began = Instant::now();
        self.draw();
    }

    /// So many more are done.
    pub(super) fn add(&mut self, count: u64) {
        self.done += count;
        if self.is_terminal && self.drawn.elapsed() >= DRAW_EVERY {
            self.draw();
        }
    }

    /// The last stage ends.
    pub(super) fn end(&mut self) {
        if self.stage.is_empty() {
            return;
        }
        self.draw();
        let line = if self.is_terminal {
            String::new()
        } else {
            format!("{}: {} in {:.1} s", self.stage, self.done, self.began.elapsed().as_secs_f64())
        };
        // There may be nobody to tell.
        let _ = writeln!(std::io::stderr(), "{line}");
        self.stage = "";
    }

    fn draw(&mut self) {
        if self.is_terminal {
            self.drawn = Instant::now();
            let _ = write!(std::io::stderr(), "\r\x1b[K{}", self.line());
            let _ = std::io::stderr().flush();
        }
    }

    fn line(&self) -> String {
        let Some(total) = self.total.filter(|total| *total > 0) else {
            return format!("{:<24} {}", self.stage, self.done);
        };
        let part = self.done.min(total);
        let full = usize::try_from(part.saturating_mul(BAR_WIDTH) / total).unwrap_or(0);
        let rest = usize::try_from(BAR_WIDTH).unwrap_or(0).saturating_sub(full);
        let bar = format!("{}{}", "#".repeat(full), "-".repeat(rest));
        let percent = part.saturating_mul(100) / total;
        format!("{:<24} [{bar}] {percent:>3} % {}/{total}", self.stage, self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills() {
        let mut progress = Progress::new();
        (progress.stage, progress.total) = ("histories", Some(4));
        for (done, full, percent) in [(0, 0, "  0 %"), (2, 15, " 50 %"), (9, 30, "100 %")] {
            progress.done = done;
            let line = progress.line();
            assert_eq!(line.matches('#').count(), full, "{line}");
            assert!(line.contains(percent), "{line}");
        }
        progress.total = None;
        assert!(progress.line().ends_with(" 9"));
    }
}
