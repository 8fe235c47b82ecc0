//! Cuts off the end of a fjall journal that a power cut has torn.
//!
//! A batch that was not fsynced may reach the disk in part, and its last page before one in the
//! middle. fjall 3.1.13 drops a batch without its end by itself, but takes one that ends and has a
//! wrong checksum for corruption and does not open. Nothing in such a batch was acknowledged, so
//! it is cut off here, and opening is tried once more.
//!
//! ```text
//! batch  start: 1 u8 | item count u32 | seqno u64
//!        item:  2 u8 | value type u8 | compression u8 = 0 | keyspace u64 | key size u16
//!               | value size u32 | stored size u32 | key | value
//!        clear: 4 u8 | keyspace u64
//!        end:   3 u8 | xxh3 of all items and clears u64 | magic "FJL" 3        little-endian
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::Xxh3;

const MAGIC: [u8; 4] = [b'F', b'J', b'L', 3];

/// Which batches may be missing after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsynced {
    /// The last one alone: every batch is fsynced before the next is written.
    Last,
    /// Any number at the end.
    Tail,
}

/// Opens a database; if its journal ends in a torn batch, cuts that off and opens it again.
pub(crate) fn open_or_mend(
    path: &Path,
    unsynced: Unsynced,
    open: impl Fn() -> fjall::Result<fjall::Database>,
) -> fjall::Result<fjall::Database> {
    let first = open();
    let Err(error @ fjall::Error::JournalRecovery(_)) = first else {
        return first;
    };
    if !mend(path, unsynced).map_err(fjall::Error::Io)? {
        return Err(error);
    }
    open()
}

/// Whether something was cut off.
fn mend(path: &Path, unsynced: Unsynced) -> io::Result<bool> {
    let Some(journal) = last_journal(path)? else {
        return Ok(false);
    };
    let whole = whole_size(&journal, 0)?;
    if unsynced == Unsynced::Last && is_followed(&journal, whole)? {
        return Ok(false);
    }
    let size = fs::metadata(&journal)?.len();
    if whole == size {
        return Ok(false);
    }
    tracing::warn!(
        "{}: the batch at {whole} was torn by a power cut and is cut off; nothing in it was \
         acknowledged",
        journal.display()
    );
    let file = OpenOptions::new().write(true).open(&journal)?;
    file.set_len(whole)?;
    file.sync_all()?;
    Ok(true)
}

/// The journal that was written last: the one with the highest number.
fn last_journal(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut last: Option<(u64, PathBuf)> = None;
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".jnl"))
            .and_then(|number| number.parse().ok());
        if let Some(number) = number
            && last.as_ref().is_none_or(|(known, _)| *known < number)
        {
            last = Some((number, path));
        }
    }
    Ok(last.map(|(_, path)| path))
}

/// Up to where whole batches go, one after the other, from `start`.
fn whole_size(journal: &Path, start: u64) -> io::Result<u64> {
    let mut file = File::open(journal)?;
    file.seek(SeekFrom::Start(start))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut whole = start;
    while let Some(size) = batch(&mut reader)? {
        whole += size;
    }
    Ok(whole)
}

/// Whether a whole batch begins behind the end of another one somewhere after `from`.
fn is_followed(journal: &Path, from: u64) -> io::Result<bool> {
    let bytes = fs::read(journal)?;
    let start = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
    let (_, rest) = bytes.split_at(start);
    for (place, window) in rest.windows(MAGIC.len()).enumerate() {
        let (_, behind) = rest.split_at(place + MAGIC.len());
        if window == MAGIC && batch(&mut &*behind)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads one batch; its size if it is whole.
fn batch(reader: &mut impl Read) -> io::Result<Option<u64>> {
    match read_batch(reader) {
        Ok(size) => Ok(size),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(e),
    }
}

fn read_batch(reader: &mut impl Read) -> io::Result<Option<u64>> {
    let mut size = 0u64;
    let mut hash = Xxh3::new();
    let [1] = take::<1>(reader, &mut size)? else {
        return Ok(None);
    };
    let mut left = u32::from_le_bytes(take(reader, &mut size)?);
    take::<8>(reader, &mut size)?;
    loop {
        let [tag] = take::<1>(reader, &mut size)?;
        match tag {
            2 | 4 if left > 0 => {
                hash.update(&[tag]);
                left -= 1;
            }
            3 if left == 0 => {
                let expected = u64::from_le_bytes(take(reader, &mut size)?);
                let magic: [u8; 4] = take(reader, &mut size)?;
                let whole = magic == MAGIC && hash.digest() == expected;
                return Ok(whole.then_some(size));
            }
            _ => return Ok(None),
        }
        if tag == 4 {
            hash.update(&take::<8>(reader, &mut size)?);
            continue;
        }
        let head: [u8; 20] = take(reader, &mut size)?;
        hash.update(&head);
        let [_, compression, _, _, _, _, _, _, _, _, k0, k1, _, _, _, _, v0, v1, v2, v3] = head;
        if compression != 0 {
            return Ok(None);
        }
        let key_size = u64::from(u16::from_le_bytes([k0, k1]));
        let value_size = u64::from(u32::from_le_bytes([v0, v1, v2, v3]));
        skip(reader, key_size + value_size, &mut hash)?;
        size += key_size + value_size;
    }
}

fn take<const N: usize>(reader: &mut impl Read, size: &mut u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    *size += N as u64;
    Ok(bytes)
}

/// Hashes the next bytes without keeping them.
fn skip(reader: &mut impl Read, size: u64, hash: &mut Xxh3) -> io::Result<()> {
    let mut left = size;
    let mut buffer = [0; 4096];
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let (part, _) = buffer.split_at_mut(count);
        reader.read_exact(part)?;
        hash.update(part);
        left -= count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::os::unix::fs::FileExt as _;

    use fjall::{Database, KeyspaceCreateOptions};

    use super::*;

    fn open(path: &Path) -> fjall::Result<Database> {
        Database::builder(path)
            .worker_threads(2)
            .journal_compression(fjall::CompressionType::None)
            .open()
    }

    /// Three batches of 20 kB; gives where each one ends.
    fn written(path: &Path) -> (PathBuf, Vec<u64>) {
        let database = open(path).unwrap();
        let rows = database.keyspace("rows", KeyspaceCreateOptions::default).unwrap();
        let journal = last_journal(path).unwrap().unwrap();
        let ends = (0u8..3).map(|number| {
            let mut batch = database.batch();
            batch.insert(&rows, [number, 0], vec![number + 1; 20_000]);
            batch.remove(&rows, [number, 1]);
            batch.commit().unwrap();
            whole_size(&journal, 0).unwrap()
        });
        (journal.clone(), ends.collect())
    }

    fn rows(path: &Path, unsynced: Unsynced) -> fjall::Result<usize> {
        let database = open_or_mend(path, unsynced, || open(path))?;
        let rows = database.keyspace("rows", KeyspaceCreateOptions::default)?;
        Ok(rows.iter().count())
    }

    #[test]
    fn what_fjall_writes_is_read_here() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, ends) = written(dir.path());
        assert!(ends.is_sorted() && ends[0] > 20_000);
        assert_eq!(whole_size(&journal, ends[0]).unwrap(), ends[2]);
    }

    #[test]
    fn a_torn_last_batch_is_cut_off() {
        for unsynced in [Unsynced::Last, Unsynced::Tail] {
            let dir = tempfile::tempdir().unwrap();
            let (journal, ends) = written(dir.path());
            let file = OpenOptions::new().write(true).open(&journal).unwrap();
            file.write_all_at(&[0; 4096], ends[1] + 8192).unwrap();
            assert!(open(dir.path()).is_err(), "fjall has learnt it, this can go");
            assert_eq!(rows(dir.path(), unsynced).unwrap(), 2);
            assert_eq!(rows(dir.path(), unsynced).unwrap(), 2);
        }
    }

    #[test]
    fn damage_in_the_middle_is_not_taken_for_a_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, ends) = written(dir.path());
        let file = OpenOptions::new().write(true).open(&journal).unwrap();
        file.write_all_at(&[0; 4096], ends[0] + 8192).unwrap();
        assert!(rows(dir.path(), Unsynced::Last).is_err());
        assert_eq!(rows(dir.path(), Unsynced::Tail).unwrap(), 1);
    }
}
