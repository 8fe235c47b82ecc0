//! A data directory that is not ours stays as it is, and is told why.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use jindou_core::id::NodeId;
use jindou_storage::dir::{DataDir, DirError};

const NODE: NodeId = NodeId(3);

fn open(path: &Path) -> Result<DataDir, DirError> {
    DataDir::open(path, NODE, 64)
}

/// Names, contents and times of everything under a directory.
fn picture(path: &Path) -> Vec<(PathBuf, Option<Vec<u8>>, std::time::SystemTime)> {
    let mut all = Vec::new();
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let meta = fs::metadata(&path).unwrap();
        let content = if meta.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            None
        } else {
            Some(fs::read(&path).unwrap())
        };
        all.push((path, content, meta.modified().unwrap()));
    }
    all.sort();
    all
}

/// Opening fails with a text that holds all the words, and changes nothing.
fn refused(path: &Path, words: &[&str]) {
    let before = picture(path);
    let text = open(path).unwrap_err().to_string();
    assert_eq!(picture(path), before, "something was touched");
    for word in words.iter().chain(&[path.to_str().unwrap()]) {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

#[test]
fn a_missing_and_an_empty_directory_become_ours() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("a/b");
    let opened = open(&missing).unwrap();
    assert_eq!(opened.root(), missing);
    assert!(opened.created_ms() > 1_700_000_000_000);
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let created = open(&empty).unwrap().created_ms();
    assert_eq!(open(&empty).unwrap().created_ms(), created);
}

#[test]
fn a_first_start_that_died_early_is_gone_over() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("LOCK"), "").unwrap();
    fs::write(dir.path().join("FORMAT.new"), "jind").unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    open(dir.path()).unwrap();
}

#[test]
fn another_programs_data_stays_untouched() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["db/wukongimdb/shard000/MANIFEST-000001", "cluster/config/remote.json"] {
        let file = dir.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "x").unwrap();
    }
    refused(dir.path(), &["cluster, db", "WuKongIM v2", "untouched", "empty directory"]);
}

#[test]
fn any_other_file_is_foreign_too() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    refused(dir.path(), &["a, b, c, d, e and 2 more"]);
}

#[test]
fn a_newer_format_is_left_to_the_newer_build() {
    let dir = tempfile::tempdir().unwrap();
    let text = "jindou\nformat: 2\nsomething: new\n";
    fs::write(dir.path().join("FORMAT"), text).unwrap();
    refused(dir.path(), &["format 2", "reads up to 1", "newer build"]);
}

#[test]
fn a_damaged_format_file_is_told() {
    for text in ["", "other\nformat: 1\n", "jindou\nformat: 1\nnode: x\nslots: 64\n"] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("FORMAT"), text).unwrap();
        refused(dir.path(), &["FORMAT", "damaged"]);
    }
}

#[test]
fn another_node_and_another_slot_count_are_told() {
    let dir = tempfile::tempdir().unwrap();
    drop(DataDir::open(dir.path(), NodeId(9), 64).unwrap());
    refused(dir.path(), &["node 9", "node 3"]);
    let dir = tempfile::tempdir().unwrap();
    drop(DataDir::open(dir.path(), NODE, 128).unwrap());
    refused(dir.path(), &["128 slots", "64 are configured"]);
}

#[test]
fn a_directory_serves_one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    refused(dir.path(), &["in use by another process"]);
    drop(first);
    open(dir.path()).unwrap();
}

#[test]
fn a_file_is_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(matches!(open(&file), Err(DirError::Io { .. })));
}
