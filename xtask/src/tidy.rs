//! The shape of the workspace: who may know whom, and what `core` may not touch.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Package → packages of ours that it may depend on, tests included. Any other arrow starts with
/// a decision record.
const ARROWS: &[(&str, &[&str])] = &[
    ("jindou-core", &[]),
    ("jindou-net", &["jindou-core"]),
    ("jindou-storage", &["jindou-core"]),
    ("jindou-cluster", &["jindou-core", "jindou-storage"]),
    ("jindou-api", &["jindou-core"]),
    ("jindou-bench", &["jindou-core"]),
    (
        "jindou",
        &[
            "jindou-core",
            "jindou-net",
            "jindou-storage",
            "jindou-cluster",
            "jindou-api",
            "jindou-bench",
        ],
    ),
    ("xtask", &[]),
    // Stands in for a dependency of openraft (cluster/histogram).
    ("base2histogram", &[]),
];

/// Words that no line of `core/src` may hold: each would be a clock, a socket, a file, a thread,
/// dice, or an order that differs from run to run. `core/clippy.toml` bans the same with types.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::thread",
    "std::time",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "HashMap",
    "HashSet",
    "thread_rng",
    "OsRng",
    "getrandom",
    "std::process",
    "async fn",
];

/// Crates that must not be linked where they would bring a second runtime, a clock or dice.
const BANNED_IN_CORE: &[&str] = &["tokio", "monoio", "async-std", "smol", "fjall", "openraft"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Every fault found, in words.
pub(crate) fn check() -> Result<Vec<String>> {
    let metadata = metadata()?;
    let mut faults = arrows(&metadata);
    faults.extend(manifests(&metadata));
    faults.extend(purity(&root().join("core/src"))?);
    Ok(faults)
}

fn metadata() -> Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .context("cargo metadata did not run")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn packages(metadata: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let packages = metadata.get("packages").and_then(Value::as_array).into_iter().flatten();
    packages.filter_map(|package| Some((package.get("name")?.as_str()?, package)))
}

fn dependencies(package: &Value) -> BTreeSet<&str> {
    let list = package.get("dependencies").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|dependency| dependency.get("name")?.as_str()).collect()
}

fn arrows(metadata: &Value) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut faults = Vec::new();
    for (name, package) in packages(metadata) {
        let Some(allowed) = allowed.get(name) else {
            faults.push(format!("{name}: not in the table of arrows (xtask/src/tidy.rs)"));
            continue;
        };
        for to in dependencies(package) {
            let ours = ARROWS.iter().any(|(package, _)| *package == to);
            if ours && !allowed.contains(&to) {
                faults.push(format!("{name} must not depend on {to}"));
            }
            if name == "jindou-core" && BANNED_IN_CORE.contains(&to) {
                faults.push(format!("{name} must not depend on {to}: it is pure"));
            }
            if to == "openraft" && name != "jindou-cluster" {
                faults.push(format!("{name} must not name openraft: cluster hides it"));
            }
        }
    }
    faults
}

fn manifests(metadata: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, package) in packages(metadata) {
        if package.get("license").and_then(Value::as_str) != Some("Apache-2.0") {
            faults.push(format!("{name}: the manifest lacks license = Apache-2.0"));
        }
    }
    faults
}

fn purity(dir: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            faults.extend(purity(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            for (number, line) in (1..).zip(text.lines()) {
                if line.trim_start().starts_with("//") {
                    continue;
                }
                for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                    faults.push(format!("{}:{number}: core must not use {word}", path.display()));
                }
            }
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        assert_eq!(check().map_err(|e| e.to_string()), Ok(Vec::new()));
    }

    #[test]
    fn a_wrong_arrow_and_an_impure_dependency_are_found() {
        let metadata = serde_json::json!({"packages": [
            {"name": "jindou-core", "dependencies": [{"name": "jindou-net"}, {"name": "monoio"}]},
            {"name": "stranger", "dependencies": []},
        ]});
        assert_eq!(arrows(&metadata).len(), 3);
    }
}
