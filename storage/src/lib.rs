//! fjall keyspaces and the lanes that own them.
