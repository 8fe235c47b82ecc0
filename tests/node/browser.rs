//! The demo page in a real browser: see `tests/browser/README.md`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::programs::{converse, done, npm, repository};
use crate::support::alone;
use crate::support::node::Node;

/// How long the chat may take; a lost connection is tried again after three seconds.
const CHAT_MAX: Duration = Duration::from_secs(240);
/// Steps that the program must report.
const STEPS: usize = 8;

/// Says how to play it again when it fails.
struct Replay;

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay: cargo test --test node browser::two_people -- --nocapture");
        }
    }
}

#[test]
fn two_people_chat_through_the_demo_page() {
    let _replay = Replay;
    let chromium = chromium();
    let files = ["package.json", "package-lock.json", ".npmrc", "main.js"];
    let program = npm("browser", &repository("tests/browser"), &files);
    let _alone = alone();
    let mut node = Node::start();
    let mut command = Command::new("node");
    command
        .arg("main.js")
        .current_dir(program)
        .env("JINDOU_API", format!("http://{}", node.api_address()))
        .env("JINDOU_DEMO", format!("http://{}", node.demo()))
        .env("JINDOU_CHROMIUM", chromium)
        .env("JINDOU_FOLDER", node.folder());
    converse(&mut node, &mut command, STEPS, CHAT_MAX);
}

/// The page is committed as it was built, so that building the node needs no Node.
#[test]
fn the_committed_page_is_what_its_sources_give() {
    let folder = repository("api/web/demo");
    let target = npm("demo-page", &folder, &["package.json", "package-lock.json", ".npmrc"]);
    for name in ["build.js", "tsconfig.json"] {
        fs::copy(folder.join(name), target.join(name)).unwrap();
    }
    for name in ["src", "static", "dist"] {
        copy_files(&folder.join(name), &target.join(name));
    }
    done(Command::new("npm").args(["run", "--silent", "check"]).current_dir(target));
}

fn copy_files(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Chromium's program, which is installed where that is possible.
fn chromium() -> PathBuf {
    let find = || {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let mut all = std::env::split_paths(&folders).flat_map(|f| names.map(|name| f.join(name)));
        all.find(|path| path.is_file())
    };
    find().unwrap_or_else(|| {
        let apt = |args: &[&str]| {
            let mut command = Command::new("apt-get");
            command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let packages = ["install", "-y", "-q", "--no-install-recommends", "chromium"];
        let installed = apt(&["update", "-q"]) && apt(&packages);
        find().filter(|_| installed).expect("Chromium: install it (apt-get install chromium)")
    })
}
