//! Programs in other languages that drive a node: how they are installed, and run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// A path of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A folder for what a program needs, made by `install` unless it was made from the same `inputs`
/// before. One installation at a time.
pub fn installed(name: &str, inputs: &[&Path], install: impl FnOnce(&Path)) -> PathBuf {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let stamp = folder.join("made-from");
    let wanted: String = inputs.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    if fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
        return folder;
    }
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    install(&folder);
    fs::write(stamp, wanted).unwrap();
    folder
}

/// The interpreter of a virtual environment with these requirements.
pub fn python(name: &str, requirements: &str) -> PathBuf {
    let requirements = repository(requirements);
    let folder = installed(name, &[&requirements], |folder| {
        done(Command::new("python3").args(["-m", "venv"]).arg(folder));
        let mut pip = Command::new(folder.join("bin/pip"));
        done(pip.args(["install", "--quiet", "--no-input", "-r"]).arg(&requirements));
    });
    folder.join("bin/python")
}

/// Runs a command that must succeed.
pub fn done(command: &mut Command) {
    let status = command.status().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(status.success(), "{command:?} ended with {status}");
}
