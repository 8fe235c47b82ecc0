//! Manager users and what they may do (operations.md §1.7).

use crate::secret::Secret;

/// A user of the manager pages, from the configuration.
#[derive(Clone, Debug)]
pub struct ManagerUser {
    /// Log-in name.
    pub name: String,
    /// Its password.
    pub password: Secret,
    /// What it may do.
    pub rights: Vec<Right>,
}

/// A right to act on a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// A resource id, or `*` for all.
    pub resource: String,
    /// Each letter is an action: `r`, `w`, or `*` for all.
    pub actions: String,
}

impl ManagerUser {
    /// Whether the user may do `action` (`'r'`, `'w'`) on `resource`.
    pub fn may(&self, resource: &str, action: char) -> bool {
        self.rights.iter().any(|right| {
            (right.resource == "*" || right.resource == resource)
                && right.actions.chars().any(|a| a == '*' || a == action)
        })
    }

    /// The rights as the log-in shows them: `slotMigrate:w,*:r`.
    pub(crate) fn permissions(&self) -> String {
        let pair = |right: &Right| format!("{}:{}", right.resource, right.actions);
        self.rights.iter().map(pair).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_pairs_of_resource_and_actions() {
        let right = |resource: &str, actions: &str| Right {
            resource: resource.to_owned(),
            actions: actions.to_owned(),
        };
        let user =
            |rights| ManagerUser { name: "op".to_owned(), password: Secret::new("hush"), rights };
        let op = user(vec![right("slotMigrate", "rw"), right("*", "r")]);
        assert!(op.may("slotMigrate", 'w') && op.may("other", 'r') && !op.may("other", 'w'));
        assert_eq!(op.permissions(), "slotMigrate:rw,*:r");
        assert!(!format!("{op:?}").contains("hush"));
        let admin = user(vec![right("*", "*")]);
        assert!(admin.may("slotMigrate", 'w') && admin.may("x", 'r'));
        assert!(!user(Vec::new()).may("x", 'r'));
    }
}
