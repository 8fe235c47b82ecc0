//! Bodies of requests and answers, read and written as Go's `encoding/json` does it (http-api.md
//! §1.3, §1.4), because back ends rely on what it lets pass.
//!
//! A body is described once, with [`body!`]; reading it goes in two steps. [`scan`] checks the
//! syntax of the first JSON value of the bytes and finds its end; [`value`] then walks the checked
//! text and hands each member to the [`Field`] of its name. No step recurses deeper than the
//! description does, so no body can exhaust the stack.

mod base64;
mod field;
mod scan;
mod value;
mod write;

pub(crate) use self::{
    base64::decode as decode_base64,
    field::{Faults, Field, Raw},
    value::Value,
    write::{Base64, to_json},
};

/// Why a body was not read. The texts are Go's where scenarios or back ends may look at them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    /// There is nothing but blanks.
    #[error("EOF")]
    Empty,
    /// The bytes end inside the value.
    #[error("unexpected EOF")]
    Truncated,
    /// A byte that may not stand there.
    #[error("invalid character {} {place}", scan::quoted(*.byte))]
    Character {
        /// The byte.
        byte: u8,
        /// Where it was met.
        place: &'static str,
    },
    /// A value of another kind, or a number that the field can't hold.
    #[error("json: cannot unmarshal {found} into {field} of type {wanted}")]
    Kind {
        /// What was there.
        found: String,
        /// Where, by names.
        field: String,
        /// What should be there.
        wanted: &'static str,
    },
    /// Bytes that aren't base64: the place in the text.
    #[error("illegal base64 data at input byte {0}")]
    Base64(usize),
}

/// Reads the first JSON value of a body; what follows it is not looked at.
pub(crate) fn read<T: Field + Default>(body: &[u8]) -> Result<T, ReadError> {
    let text = scan::first_value(body)?;
    let mut target = T::default();
    let mut faults = Faults::default();
    target.read(Value::of(text), &mut faults);
    faults.into_result()?;
    Ok(target)
}

/// Describes a body: a struct, and how its members are read.
///
/// ```text
/// body! {
///     /// POST /conn/kick.
///     EndBody { uid: String, conn_id: i64, node_id: u64, }
/// }
/// ```
///
/// A member's name is the field's. Names match in any case; of a repeated name the last one
/// counts; unknown ones are skipped; `null` leaves what is there.
macro_rules! body {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type,)*
        }

        impl $crate::json::Field for $name {
            const KIND: &'static str = stringify!($name);

            fn read(&mut self, value: $crate::json::Value<'_>, faults: &mut $crate::json::Faults) {
                for (key, value) in faults.members(value, Self::KIND) {
                    $(if key.is(stringify!($field)) {
                        faults.within(stringify!($field), |faults| {
                            $crate::json::Field::read(&mut self.$field, value, faults);
                        });
                        continue;
                    })*
                }
            }
        }
    };
}

pub(crate) use body;

/// Feeds arbitrary bytes to every body reader, the base64 reader and the writer: the entry of the
/// fuzz target. Must never panic, whatever the bytes.
pub fn fuzz_body(bytes: &[u8]) {
    use crate::{
        channel, cluster, command_sync, connection, conversation, data, history, list, lookup,
        manager, message, migrate, plugin, stream, sync_messages, system_accounts, tag, user,
    };

    fn one<T: Field + Default>(bytes: &[u8]) {
        let _ = read::<T>(bytes).map_err(|error| error.to_string());
    }

    one::<Option<Vec<String>>>(bytes);
    one::<user::TokenBody>(bytes);
    one::<system_accounts::UidsBody>(bytes);
    one::<user::DeviceQuitBody>(bytes);
    one::<connection::EndBody>(bytes);
    one::<channel::ChannelBody>(bytes);
    one::<channel::InfoBody>(bytes);
    one::<channel::DeleteBody>(bytes);
    one::<cluster::MigrateBody>(bytes);
    one::<data::StatusBody>(bytes);
    one::<cluster::ReplaceBody>(bytes);
    one::<list::SubscriberBody>(bytes);
    one::<list::ListBody>(bytes);
    one::<list::ClearBody>(bytes);
    one::<manager::LoginBody>(bytes);
    one::<plugin::BindingBody>(bytes);
    one::<plugin::UninstallBody>(bytes);
    one::<plugin::ConfigBody>(bytes);
    one::<tag::RemoveBody>(bytes);
    one::<message::SendBody>(bytes);
    one::<message::SendBatchBody>(bytes);
    one::<history::SyncBody>(bytes);
    one::<command_sync::SyncBody>(bytes);
    one::<list::RecipientsBody>(bytes);
    one::<sync_messages::SyncMessagesBody>(bytes);
    one::<command_sync::AckBody>(bytes);
    one::<lookup::MessagesBody>(bytes);
    one::<lookup::MessageBody>(bytes);
    one::<stream::EventBody>(bytes);
    one::<stream::EventSyncBody>(bytes);
    stream::fuzz_payload(bytes);
    one::<conversation::ReadBody>(bytes);
    one::<conversation::SyncBody>(bytes);
    one::<conversation::ByChannelsBody>(bytes);
    one::<conversation::UidBody>(bytes);
    one::<migrate::ImportMessagesBody>(bytes);
    one::<migrate::ImportConversationsBody>(bytes);
    one::<migrate::ReadConversationsBody>(bytes);
    one::<migrate::ImportDevicesBody>(bytes);
    one::<migrate::ImportListBody>(bytes);
    let _ = base64::decode(bytes);
    let _ = to_json(&String::from_utf8_lossy(bytes));
    conversation::fuzz_last_seqs(&String::from_utf8_lossy(bytes));
}

#[cfg(test)]
mod tests;
