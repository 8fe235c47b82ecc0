//! Programs in other languages that drive a node: how they are installed, and run.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::node::Node;

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

/// A copy of these files of a folder beside the npm packages that their lock file names.
pub fn npm(name: &str, folder: &Path, files: &[&str]) -> PathBuf {
    let paths: Vec<_> = files.iter().map(|name| folder.join(name)).collect();
    let inputs: Vec<_> = paths.iter().map(AsRef::as_ref).collect();
    installed(name, &inputs, |target| {
        for (name, path) in files.iter().zip(&paths) {
            fs::copy(path, target.join(name)).unwrap();
        }
        done(Command::new("npm").args(["ci", "--ignore-scripts"]).current_dir(target));
    })
}

/// Runs a program against a node that dies and comes back when it asks, until it has reported so many
/// steps (`tests/sdk/README.md`).
pub fn converse(node: &mut Node, program: &mut Command, steps: usize, patience: Duration) {
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut answers, said) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(said).lines() {
            let _ = sender.send(line.unwrap());
        }
    });
    let (end, mut held) = (Instant::now() + patience, Vec::new());
    // The lines end when the program does.
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if line == "ask: kill" => node.kill(),
            Ok(line) if line == "ask: start" => {
                node.restart();
            }
            Ok(line) => {
                held.push(line);
                continue;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                panic!("not done after {patience:?}; {held:?}");
            }
        }
        answers.write_all(b"done\n").unwrap();
    }
    let status = child.wait().unwrap();
    assert!(status.success() && held.len() == steps, "{status}; {held:?}");
}
