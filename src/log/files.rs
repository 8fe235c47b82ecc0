//! The log's files: one per severity, rotated at 500 MB; of each, the three newest old ones are kept, for 28
//! days (operations.md §2.4).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::json::{now, rfc3339};
use super::queue::Sink;

const SIZE_MAX: u64 = 500_000_000;
const OLD_MAX: usize = 3;
const AGE_MAX: Duration = Duration::from_secs(28 * 86_400);

/// Where a line belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// info.log: debug lines too.
    Info,
    /// warn.log.
    Warn,
    /// error.log.
    Error,
    /// panic.log: with stacks.
    Panic,
    /// focus.log: what an operator watches for.
    Focus,
}

/// All files of a folder.
pub(super) struct Files {
    files: [Rotating; 5],
}

impl Files {
    /// Opens or creates the files, and removes what is too old.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let open = |name| Rotating::open(folder, name, SIZE_MAX);
        Ok(Self {
            files: [open("info")?, open("warn")?, open("error")?, open("panic")?, open("focus")?],
        })
    }
}

impl Sink for Files {
    fn write(&mut self, place: Place, lines: &[u8]) -> io::Result<()> {
        let [info, warn, error, panic, focus] = &mut self.files;
        let file = match place {
            Place::Info => info,
            Place::Warn => warn,
            Place::Error => error,
            Place::Panic => panic,
            Place::Focus => focus,
        };
        file.write(lines, now())
    }
}

/// A file that makes room for a new one when it has grown.
struct Rotating {
    folder: PathBuf,
    name: &'static str,
    size_max: u64,
    file: File,
    size: u64,
}

impl Rotating {
    fn open(folder: &Path, name: &'static str, size_max: u64) -> io::Result<Self> {
        let file = append(&folder.join(format!("{name}.log")))?;
        let size = file.metadata()?.len();
        let rotating = Self { folder: folder.to_owned(), name, size_max, file, size };
        rotating.remove_old()?;
        Ok(rotating)
    }

    fn write(&mut self, lines: &[u8], since_epoch: Duration) -> io::Result<()> {
        let size = lines.len() as u64;
        if self.size > 0 && self.size + size > self.size_max {
            self.rotate(since_epoch)?;
        }
        self.file.write_all(lines)?;
        self.size += size;
        Ok(())
    }

    fn rotate(&mut self, since_epoch: Duration) -> io::Result<()> {
        let path = self.folder.join(format!("{}.log", self.name));
        let time = rfc3339(since_epoch).replace(':', "-");
        let time = time.get(..23).unwrap_or(&time);
        fs::rename(&path, self.folder.join(format!("{}-{time}.log", self.name)))?;
        self.file = append(&path)?;
        self.size = 0;
        self.remove_old()
    }

    /// Removes old files that are too many or too old.
    fn remove_old(&self) -> io::Result<()> {
        let mut old = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let is_old = entry.file_name().to_str().is_some_and(|name| self.is_old(name));
            if is_old {
                old.push((entry.file_name(), entry.metadata()?.modified()?));
            }
        }
        // Their names begin alike and go on with the time.
        old.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        let now = SystemTime::now();
        for (place, (name, modified)) in old.iter().enumerate() {
            let age = now.duration_since(*modified).unwrap_or_default();
            if place >= OLD_MAX || age > AGE_MAX {
                fs::remove_file(self.folder.join(name))?;
            }
        }
        Ok(())
    }

    /// Whether a name is `{name}-{time}.log`, as written by us or by v2.2.5.
    fn is_old(&self, name: &str) -> bool {
        name.strip_prefix(self.name)
            .and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".log"))
            .is_some_and(|time| time.starts_with(|c: char| c.is_ascii_digit()))
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_that_has_grown_makes_room_and_three_old_ones_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let stranger = folder.path().join("warn-notes.log");
        fs::write(&stranger, "not ours").unwrap();
        let mut file = Rotating::open(folder.path(), "warn", 10).unwrap();
        for second in 0..6 {
            file.write(b"12345678\n", Duration::from_secs(1_776_841_500 + second)).unwrap();
        }
        assert_eq!(
            names(folder.path()),
            [
                "warn-2026-04-22T07-05-03.000.log",
                "warn-2026-04-22T07-05-04.000.log",
                "warn-2026-04-22T07-05-05.000.log",
                "warn-notes.log",
                "warn.log"
            ]
        );
        assert_eq!(fs::read(folder.path().join("warn.log")).unwrap(), b"12345678\n");
        // What is there is gone on with.
        let mut file = Rotating::open(folder.path(), "warn", 30).unwrap();
        file.write(b"more\n", Duration::ZERO).unwrap();
        assert_eq!(fs::read(folder.path().join("warn.log")).unwrap(), b"12345678\nmore\n");
    }

    #[test]
    fn what_is_too_old_goes_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join("info-2020-01-01T00-00-00.000.log");
        let young = folder.path().join("info-2020-01-02T00-00-00.000.log");
        for (path, age) in [(&old, AGE_MAX + Duration::from_secs(9)), (&young, Duration::ZERO)] {
            File::create(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
        }
        drop(Files::open(folder.path()).unwrap());
        assert!(!old.exists() && young.exists());
    }

    #[test]
    fn each_severity_has_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::open(&folder.path().join("a/b")).unwrap();
        let all = [
            (Place::Info, "info"),
            (Place::Warn, "warn"),
            (Place::Error, "error"),
            (Place::Panic, "panic"),
            (Place::Focus, "focus"),
        ];
        for (place, name) in all {
            files.write(place, name.as_bytes()).unwrap();
        }
        for (_, name) in all {
            let path = folder.path().join("a/b").join(format!("{name}.log"));
            assert_eq!(fs::read_to_string(path).unwrap(), name);
        }
    }
}
