//! What waits to leave on a link, in chunks that end at the bounds of frames.

use std::collections::VecDeque;

use super::frame::{self, Kind};

/// A chunk of output takes no further frame from this size on.
const CHUNK_SIZE: usize = 128 << 10;
/// A frame of envelopes takes no further one from this size on.
pub(crate) const BATCH_SIZE: usize = 256 << 10;
/// Empty chunks kept for reuse, and the largest that is kept.
const SPARE_COUNT_MAX: usize = 4;

/// See the module.
#[derive(Default)]
pub(super) struct Output {
    /// Pings and pongs.
    pub(super) urgent: Vec<u8>,
    chunks: VecDeque<Vec<u8>>,
    /// Where in the last chunk a frame of envelopes begins that takes more.
    pub(super) open: Option<usize>,
    spare: Vec<Vec<u8>>,
}

impl Output {
    pub(super) fn tail(&mut self) -> &mut Vec<u8> {
        self.seal();
        if self.chunks.back().is_none_or(|chunk| chunk.len() >= CHUNK_SIZE) {
            let chunk = self.spare.pop().unwrap_or_default();
            self.chunks.push_back(chunk);
        }
        self.chunks.back_mut().unwrap_or(&mut self.urgent)
    }

    /// Ends the frame of envelopes.
    pub(super) fn seal(&mut self) {
        if let Some(start) = self.open.take()
            && let Some(chunk) = self.chunks.back_mut()
        {
            frame::finish(chunk, start);
        }
    }

    /// The chunk with the open frame.
    pub(super) fn batch(&mut self) -> (&mut Vec<u8>, usize) {
        let size = self.chunks.back().map_or(0, Vec::len);
        match self.open {
            Some(start) if size - start < BATCH_SIZE => {}
            Some(_) | None => {
                let tail = self.tail();
                let start = frame::begin(tail, Kind::Envelopes);
                self.open = Some(start);
            }
        }
        let start = self.open.unwrap_or_default();
        (self.chunks.back_mut().unwrap_or(&mut self.urgent), start)
    }

    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        if !self.urgent.is_empty() {
            return Some(std::mem::take(&mut self.urgent));
        }
        if self.chunks.len() <= 1 {
            self.seal();
        }
        self.chunks.pop_front().filter(|chunk| !chunk.is_empty())
    }

    pub(super) fn recycle(&mut self, mut chunk: Vec<u8>) {
        if self.spare.len() < SPARE_COUNT_MAX && chunk.capacity() <= 2 * CHUNK_SIZE {
            chunk.clear();
            self.spare.push(chunk);
        }
    }
}
