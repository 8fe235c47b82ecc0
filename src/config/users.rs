//! Manager users and their rights (operations.md §1.7).

use jindou_api::Right;
use jindou_core::id::SYSTEM_UID;

use super::ConfigError;
use super::keys;
use super::notice::Notice;
use super::reader::{Reader, Shown};
use super::secret::Secret;

/// A user of the manager pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagerUser {
    /// Log-in name.
    pub name: String,
    /// Its password.
    pub password: Secret,
    /// What it may do.
    pub rights: Vec<Right>,
}

pub(super) fn read(
    reader: &mut Reader<'_>,
    manager_uid: &str,
) -> Result<Vec<ManagerUser>, ConfigError> {
    let items = reader.list(&keys::AUTH_USERS);
    let mut users = Vec::with_capacity(items.len());
    for (place, item) in items.iter().enumerate() {
        let user = parse(item, &mut reader.notices)
            .map_err(|why| ConfigError::Users { place: place + 1, why })?;
        if user.name == manager_uid || user.name == SYSTEM_UID {
            let why = "the name is managerUID's or the system's".to_owned();
            return Err(ConfigError::Users { place: place + 1, why });
        }
        users.push(user);
    }
    if let Some(in_force) = reader.in_force.get_mut(keys::AUTH_USERS.name) {
        in_force.value = Shown::Many(users.iter().map(masked).collect());
    }
    Ok(users)
}

fn masked(user: &ManagerUser) -> String {
    let rights: Vec<String> =
        user.rights.iter().map(|right| format!("{}:{}", right.resource, right.actions)).collect();
    format!("{}:***:[{}]", user.name, rights.join(","))
}

/// `USER:PASSWORD:*` or `USER:PASSWORD:[RES:ACT,…]`. Errors never repeat the item: it holds a password.
fn parse(item: &str, notices: &mut Vec<Notice>) -> Result<ManagerUser, String> {
    const FORMS: &str = "wanted USER:PASSWORD:* or USER:PASSWORD:[RESOURCE:ACTIONS,…]";
    let (head, rights) = match item.split_once('[') {
        None => (item, None),
        Some((head, tail)) => {
            let (inside, _) = tail.split_once(']').ok_or("the bracket is not closed")?;
            (head, Some(inside))
        }
    };
    let mut fields = head.split(':');
    let name = fields.next().unwrap_or("").trim();
    let password = fields.next().ok_or(FORMS)?.trim();
    let third = fields.next().ok_or(FORMS)?;
    if name.is_empty() || password.is_empty() || fields.next().is_some() {
        return Err(FORMS.to_owned());
    }
    let rights = match rights {
        None if third == "*" => vec![Right { resource: "*".to_owned(), actions: "*".to_owned() }],
        None => return Err(FORMS.to_owned()),
        Some(_) if !third.trim().is_empty() => return Err(FORMS.to_owned()),
        Some(inside) => inside
            .split(',')
            .map(str::trim)
            .filter(|right| !right.is_empty())
            .filter_map(|right| {
                let parsed = right_of(right);
                if parsed.is_none() {
                    notices.push(Notice::Skipped {
                        key: keys::AUTH_USERS.name,
                        item: format!("{name}: {right}"),
                        why: "wanted RESOURCE:ACTIONS with the actions r, w, *".to_owned(),
                    });
                }
                parsed
            })
            .collect(),
    };
    Ok(ManagerUser { name: name.to_owned(), password: Secret::new(password.to_owned()), rights })
}

fn right_of(text: &str) -> Option<Right> {
    let (resource, actions) = text.split_once(':')?;
    let (resource, actions) = (resource.trim(), actions.trim());
    let fits = !resource.is_empty()
        && !actions.is_empty()
        && actions.chars().all(|a| matches!(a, 'r' | 'w' | '*'));
    fits.then(|| Right { resource: resource.to_owned(), actions: actions.to_owned() })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_two_forms() {
        let mut notices = Vec::new();
        let admin = parse("admin:pw:*", &mut notices).unwrap();
        assert_eq!(masked(&admin), "admin:***:[*:*]");
        let op = parse("op:pw:[slotMigrate:rw, *:r ,,bad,x:q]", &mut notices).unwrap();
        assert_eq!(notices.len(), 2);
        assert_eq!(masked(&op), "op:***:[slotMigrate:rw,*:r]");
        assert!(!format!("{op:?}").contains("pw"));
    }

    #[test]
    fn everything_else_is_refused() {
        for item in [
            "",
            "a",
            "a:b",
            "a:b:c",
            "a:b:c:*",
            ":b:*",
            "a::*",
            "a:b:[*:r",
            "a:b[*:r]",
            "a:b:x[*:r]",
        ] {
            assert!(parse(item, &mut Vec::new()).is_err(), "{item:?}");
        }
    }
}
