//! A log of recycled segments, as an alternative to measure against. Writes are what a real one
//! would do: frames with CRC and segment generation, preallocated segments that are overwritten
//! when nothing in them is needed, an index in memory, one `fdatasync` per drain. What a real one
//! needs besides (recovery, rewriting of pinned frames, poisoning) is not here.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use bytes::Bytes;
use jindou_storage::{Answers, Done, LogFull, LogState, LogStorage, Outcome};

const SEGMENT_SIZE: u64 = 64 << 20;
const HEAD_SIZE: usize = 32;

enum Request {
    Append(u16, Vec<(u64, Bytes)>, Done),
    Vote(u16, Bytes, Done),
    Truncate(u16, Option<u64>, Done),
    Purge(u16, u64, Bytes, Done),
    Read(u16, Range<u64>, Done),
    Load(u16, Done),
}

/// The handle.
pub(crate) struct SegmentLog {
    queue: flume::Sender<Request>,
    size: Arc<AtomicUsize>,
}

struct Segment {
    file: File,
    /// The last index of each group in it: it is free when all of them are purged.
    last: BTreeMap<u16, u64>,
}

#[derive(Default)]
struct Group {
    index: VecDeque<(u64, Bytes)>,
    purged: Option<(u64, Bytes)>,
    vote: Option<Bytes>,
}

struct Lane {
    path: PathBuf,
    made: u64,
    generation: u64,
    live: VecDeque<Segment>,
    free: Vec<File>,
    end: u64,
    groups: BTreeMap<u16, Group>,
}

impl SegmentLog {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let (queue, requests) = flume::unbounded();
        let size = Arc::new(AtomicUsize::new(0));
        let mut lane = Lane {
            path: path.to_owned(),
            made: 0,
            generation: 0,
            live: VecDeque::new(),
            free: Vec::new(),
            end: 0,
            groups: BTreeMap::new(),
        };
        // Three segments are written once before anything counts, as after a first minute.
        for _ in 0..3 {
            let file = lane.make()?;
            lane.free.push(file);
        }
        lane.rotate()?;
        thread::spawn(move || lane.run(&requests).unwrap());
        Ok(Self { queue, size })
    }

    fn send(&self, request: Request) {
        self.queue.send(request).unwrap();
    }
}

impl Lane {
    fn make(&mut self) -> io::Result<File> {
        self.made += 1;
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(self.path.join(format!("{}.seg", self.made)))?;
        let zeros = vec![0u8; 4 << 10];
        for place in 0..SEGMENT_SIZE >> 12 {
            file.write_all_at(&zeros, place << 12)?;
        }
        file.sync_all()?;
        Ok(file)
    }

    /// Continues in a free segment; makes one if there is none.
    fn rotate(&mut self) -> io::Result<()> {
        while let Some(first) = self.live.front() {
            let needed = first.last.iter().any(|(group, last)| {
                let purged = self.groups.get(group).and_then(|group| group.purged.as_ref());
                purged.is_none_or(|(purged, _)| purged < last)
            });
            if needed {
                break;
            }
            self.free.extend(self.live.pop_front().map(|segment| segment.file));
        }
        let file = match self.free.pop() {
            Some(file) => file,
            None => self.make()?,
        };
        self.generation += 1;
        self.end = 0;
        self.live.push_back(Segment { file, last: BTreeMap::new() });
        Ok(())
    }

    fn run(mut self, requests: &flume::Receiver<Request>) -> io::Result<()> {
        let mut buffer = Vec::new();
        let mut answers = Answers::default();
        while let Ok(first) = requests.recv() {
            let mut done = Vec::new();
            buffer.clear();
            for request in std::iter::once(first).chain(requests.try_iter()) {
                self.perform(request, &mut buffer, &mut done, &mut answers)?;
                if buffer.len() > 4 << 20 {
                    break;
                }
            }
            self.write(&buffer)?;
            for done in done {
                answers.push(done, Ok(Outcome::Done));
            }
            answers.publish();
        }
        Ok(())
    }

    fn write(&mut self, buffer: &[u8]) -> io::Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let file = &self.live.back().unwrap().file;
        file.write_all_at(buffer, self.end)?;
        file.sync_data()?;
        self.end += buffer.len() as u64;
        Ok(())
    }

    fn perform(
        &mut self,
        request: Request,
        buffer: &mut Vec<u8>,
        done: &mut Vec<Done>,
        answers: &mut Answers,
    ) -> io::Result<()> {
        match request {
            Request::Append(group, entries, to) => {
                for (index, entry) in entries {
                    self.frame(buffer, 1, group, index, &entry)?;
                    self.live.back_mut().unwrap().last.insert(group, index);
                    let group = self.groups.entry(group).or_default();
                    group.index.push_back((index, entry));
                }
                done.push(to);
            }
            Request::Vote(group, vote, to) => {
                self.frame(buffer, 2, group, 0, &vote)?;
                self.groups.entry(group).or_default().vote = Some(vote);
                done.push(to);
            }
            Request::Truncate(group, index, to) => {
                self.frame(buffer, 3, group, index.unwrap_or(u64::MAX), &[])?;
                let group = self.groups.entry(group).or_default();
                group.index.retain(|(known, _)| index.is_some_and(|index| *known <= index));
                done.push(to);
            }
            Request::Purge(group, index, mark, to) => {
                self.frame(buffer, 4, group, index, &mark)?;
                let group = self.groups.entry(group).or_default();
                while group.index.front().is_some_and(|(known, _)| *known <= index) {
                    group.index.pop_front();
                }
                group.purged = Some((index, mark));
                done.push(to);
            }
            Request::Read(group, range, to) => {
                let group = self.groups.entry(group).or_default();
                let entries = group.index.iter().filter(|(index, _)| range.contains(index));
                answers.push(to, Ok(Outcome::Entries(entries.cloned().collect())));
            }
            Request::Load(group, to) => {
                let group = self.groups.entry(group).or_default();
                let state = LogState {
                    vote: group.vote.clone(),
                    purged: group.purged.clone(),
                    first: group.index.front().map(|(index, _)| *index),
                    last: group.index.back().map(|(index, _)| *index),
                    tail: group.index.iter().cloned().collect(),
                    committed: None,
                };
                answers.push(to, Ok(Outcome::Log(Box::new(state))));
            }
        }
        Ok(())
    }

    /// `size u32 | crc u32 | generation u64 | kind u16 | group u16 | reserved u32 | index u64`
    fn frame(
        &mut self,
        buffer: &mut Vec<u8>,
        kind: u16,
        group: u16,
        index: u64,
        body: &[u8],
    ) -> io::Result<()> {
        let size = HEAD_SIZE + body.len();
        if self.end + (buffer.len() + size) as u64 > SEGMENT_SIZE {
            self.write(buffer)?;
            buffer.clear();
            self.rotate()?;
        }
        let start = buffer.len();
        buffer.extend_from_slice(&(size as u32).to_le_bytes());
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(&self.generation.to_le_bytes());
        buffer.extend_from_slice(&kind.to_le_bytes());
        buffer.extend_from_slice(&group.to_le_bytes());
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(&index.to_le_bytes());
        buffer.extend_from_slice(body);
        let crc = crc32fast::hash(&buffer[start + 8..]);
        buffer[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
        Ok(())
    }
}

impl LogStorage for SegmentLog {
    fn append(&self, group: u16, entries: Vec<(u64, Bytes)>, done: Done) -> Result<(), LogFull> {
        self.send(Request::Append(group, entries, done));
        Ok(())
    }

    fn save_vote(&self, group: u16, vote: Bytes, done: Done) {
        self.send(Request::Vote(group, vote, done));
    }

    fn truncate_after(&self, group: u16, index: Option<u64>, done: Done) {
        self.send(Request::Truncate(group, index, done));
    }

    fn purge_to(&self, group: u16, index: u64, mark: Bytes, done: Done) {
        self.send(Request::Purge(group, index, mark, done));
    }

    fn save_committed(&self, _: u16, _: Bytes) {}

    fn read(&self, group: u16, range: Range<u64>, _: usize, done: Done) {
        self.send(Request::Read(group, range, done));
    }

    fn load(&self, group: u16, _: usize, done: Done) {
        self.send(Request::Load(group, done));
    }

    fn queue_size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }
}
