//! What a lane tells when it has nothing to do.

use std::{fmt, sync::Arc};

/// Called by a lane's own thread when it has been without work for a while: its owner may have it
/// give memory back.
#[derive(Clone)]
pub struct OnIdle(Arc<dyn Fn() + Send + Sync>);

impl OnIdle {
    /// Calls this.
    pub fn new(call: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }

    pub(crate) fn call(&self) {
        (self.0)();
    }
}

impl Default for OnIdle {
    fn default() -> Self {
        Self::new(|| {})
    }
}

impl fmt::Debug for OnIdle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnIdle")
    }
}
