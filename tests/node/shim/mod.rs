//! Libraries that are preloaded into a node and change what its disk does: `hold.c` keeps every
//! fsync waiting, `lossy.c` loses at the kill what was not fsynced. Both are compiled by the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The library made of `tests/node/shim/{name}.c`.
pub fn library(name: &'static str) -> &'static Path {
    static HOLD: OnceLock<PathBuf> = OnceLock::new();
    static LOSSY: OnceLock<PathBuf> = OnceLock::new();
    let place = if name == "hold" { &HOLD } else { &LOSSY };
    place.get_or_init(|| {
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/node/shim/{name}.c"));
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.so"));
        let mut compile = Command::new("cc");
        compile.args(["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]);
        compile.arg(&library).arg(&source).args(["-ldl", "-lpthread"]);
        let done = compile.status().expect("a C compiler, cc, is needed for the shims");
        assert!(done.success(), "{} does not compile", source.display());
        library
    })
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let mut copy = Command::new("cp");
    assert!(copy.arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// The lossy disk is itself tried, with a program of a few lines.
mod tests {
    use super::*;

    /// What the shadow holds after `program` (Python, in the root) ended without more fsyncs:
    /// names and contents.
    fn left_of(before: &[(&str, &str)], program: &str) -> Vec<(String, String)> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (root, shadow) = (folder.path().join("root"), folder.path().join("shadow"));
        fs::create_dir(&root).unwrap();
        for (name, text) in before {
            fs::write(root.join(name), text).unwrap();
        }
        copy(&root, &shadow);
        let program = format!(
            "import os\n\
             def sync(path):\n    d = os.open(path, os.O_RDONLY); os.fsync(d); os.close(d)\n\
             def put(path, data, at=0, flags=os.O_CREAT):\n    \
                 d = os.open(path, os.O_RDWR | flags); os.pwrite(d, data, at); return d\n{program}"
        );
        let status = Command::new("python3")
            .args(["-B", "-S", "-E", "-c", &program])
            .env("LD_PRELOAD", library("lossy"))
            .env("JINDOU_SHIM_ROOT", &root)
            .env("JINDOU_SHIM_SHADOW", &shadow)
            .current_dir(&root)
            .status()
            .unwrap();
        assert!(status.success());
        let mut out = Vec::new();
        let mut folders = vec![shadow.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = path.strip_prefix(&shadow).unwrap().to_str().unwrap().to_owned();
                out.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
        out.sort();
        out
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |&(name, text): &(&str, &str)| (name.to_owned(), text.to_owned());
        expected.iter().map(owned).collect()
    }

    #[test]
    fn the_lossy_disk_keeps_what_was_fsynced_and_nothing_else() {
        let left = left_of(
            &[("log", "0123456789")],
            "d = put('log', b'AB', 2); os.fdatasync(d); os.pwrite(d, b'XY', 6); os.pwrite(d, b'more', 10)\n\
             e = put('new', b'kept'); os.fsync(e); os.write(e, b'lost, but')\n\
             put('never', b'lost')",
        );
        assert_eq!(left, pairs(&[("log", "01AB456789"), ("new", "kept")]));
    }

    #[test]
    fn the_lossy_disk_copies_all_that_was_written_between_two_fsyncs() {
        let left = left_of(
            &[],
            "d = put('log', b'one'); os.fsync(d)\n\
             os.lseek(d, 3, 0); os.write(d, b'two'); os.writev(d, [b'three', b'four']); e = os.dup(d); os.write(e, b'five')\n\
             os.fsync(d); os.write(d, b'six')",
        );
        assert_eq!(left, pairs(&[("log", "onetwothreefourfive")]));
    }

    #[test]
    fn the_lossy_disk_keeps_a_preallocated_file_with_its_holes() {
        let left = left_of(
            &[],
            "d = os.open('log', os.O_RDWR | os.O_CREAT); os.ftruncate(d, 8); os.fsync(d)\n\
             os.pwrite(d, b'ab', 0); os.fsync(d); os.pwrite(d, b'cd', 2)",
        );
        assert_eq!(left, pairs(&[("log", "ab\0\0\0\0\0\0")]));
    }

    #[test]
    fn the_lossy_disk_forgets_what_was_cut_off_and_written_anew() {
        let left = left_of(
            &[("log", "0123456789")],
            "d = put('log', b'', 0); os.ftruncate(d, 4); os.fsync(d); os.ftruncate(d, 2); os.ftruncate(d, 6); os.fsync(d); os.ftruncate(d, 0)",
        );
        assert_eq!(left, pairs(&[("log", "01\0\0\0\0")]));
    }

    #[test]
    fn the_lossy_disk_keeps_a_rename_only_when_its_folder_was_fsynced() {
        let program = "os.close(put('tmp', b'new')); sync('tmp'); os.rename('tmp', 'current')\n";
        let before = [("current", "old")];
        assert_eq!(left_of(&before, program), pairs(&[("current", "old"), ("tmp", "new")]));
        let with_folder = format!("{program}sync('.')");
        assert_eq!(left_of(&before, &with_folder), pairs(&[("current", "new")]));
        let with_file = format!("{program}sync('current')");
        assert_eq!(left_of(&before, &with_file), pairs(&[("current", "new")]));
    }

    #[test]
    fn the_lossy_disk_brings_removed_files_back_until_the_folder_is_fsynced() {
        let before = [("a", "1"), ("b", "2")];
        assert_eq!(left_of(&before, "os.remove('a')"), pairs(&before));
        assert_eq!(left_of(&before, "os.remove('a'); sync('.')"), pairs(&before[1..]));
    }

    #[test]
    fn the_lossy_disk_shows_a_file_that_was_never_fsynced_as_empty_when_its_folder_was() {
        let left = left_of(
            &[("old", "1")],
            "os.remove('old'); put('new', b'lost'); os.mkdir('d'); put('d/x', b'kept'); sync('d/x'); sync('.')",
        );
        assert_eq!(left, pairs(&[("d/x", "kept"), ("new", "")]));
    }
}
