//! A kept history is checked again.

use std::path::Path;

use crate::support::history::{check, gaps, load, summary};

/// Checks a kept history again: `JINDOU_HISTORY=FILE`.
#[test]
fn a_kept_history() {
    let Some(file) = std::env::var_os("JINDOU_HISTORY") else {
        return;
    };
    let history = load(Path::new(&file)).unwrap();
    for (fault, gaps) in history.faults.iter().zip(gaps(&history)) {
        println!("{fault:?}: {gaps}");
    }
    let found = check(&history);
    assert!(found.is_empty(), "{}", summary(&found));
}
