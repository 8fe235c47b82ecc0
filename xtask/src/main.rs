//! `cargo xtask`: what cargo does not check by itself. Only reads.
//!
//! `tidy` compares the crates with the table of arrows in ARCHITECTURE.md, keeps `core` pure, and
//! looks at manifests. Its rules are tests too (`cargo test -p xtask`).

mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    let task = std::env::args().nth(1);
    let outcome = match task.as_deref() {
        Some("tidy") => tidy::check(),
        Some(_) | None => {
            eprintln!("usage: cargo xtask tidy");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            for fault in faults {
                eprintln!("{fault}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
