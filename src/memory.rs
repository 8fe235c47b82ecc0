//! What the allocator keeps for later goes back to the system (decision 0012).

#![expect(unsafe_code, reason = "the allocator's own interface")]

/// Gives back what this thread has freed, and what others have freed of what it had allocated: the
/// allocator notices the latter when the thread allocates again, which one without work does not.
pub fn give_back() {
    // SAFETY: takes no pointers, and may be called by any thread at any time.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
