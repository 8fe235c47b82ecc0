//! Plugin routes (http-api.md §12).

use crate::answer::{Answer, value};

/// GET /plugins: none runs on this node.
pub(crate) fn plugins() -> Answer {
    Ok(value::<[(); 0]>(&[]))
}
