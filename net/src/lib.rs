//! Shard threads, rings, sockets and HTTP serving on monoio.
