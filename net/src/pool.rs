//! Buffers that are lent for the moment of a read or until a send has left.

/// Buffers of one size. There is always one to lend; beyond `count_max` they are not kept.
pub(crate) struct BufferPool {
    size: usize,
    count_max: usize,
    free: Vec<Vec<u8>>,
}

impl BufferPool {
    pub(crate) fn new(size: usize, count_max: usize) -> Self {
        Self { size, count_max, free: Vec::new() }
    }

    /// An empty buffer with the pool's size of room.
    pub(crate) fn lend(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_else(|| Vec::with_capacity(self.size))
    }

    /// Takes a buffer back. One that has grown is not kept.
    pub(crate) fn give_back(&mut self, mut buffer: Vec<u8>) {
        if self.free.len() < self.count_max && buffer.capacity() <= self.size * 2 {
            buffer.clear();
            self.free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty() {
        let mut pool = BufferPool::new(16, 1);
        let mut buffer = pool.lend();
        buffer.extend_from_slice(b"bytes");
        pool.give_back(buffer);
        let buffer = pool.lend();
        assert!(buffer.is_empty() && buffer.capacity() >= 16);
        assert!(pool.free.is_empty());
    }

    #[test]
    fn a_buffer_that_has_grown_is_not_kept() {
        let mut pool = BufferPool::new(16, 1);
        pool.give_back(Vec::with_capacity(1000));
        assert!(pool.free.is_empty());
    }
}
