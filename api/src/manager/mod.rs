//! Who may do what: log-ins of manager users, the tokens that they get, and the rights that routes
//! ask for (http-api.md §13, operations.md §4.2, §4.3).
//!
//! ```text
//!   POST /manager/login ─► attempts ─► users ─► jwt::sign        every other call
//!                                                 jwt::verify ─► Caller ─► rights ─► handler
//! ```

mod attempts;
mod caller;
mod jwt;
mod login;
mod pages;
mod rights;
mod users;

#[cfg(test)]
mod tests;

pub use self::{
    attempts::Attempts,
    login::LoginSettings,
    users::{ManagerUser, Right},
};
pub(crate) use self::{
    caller::{Caller, Refused, client_ip},
    login::{LoginBody, login},
    pages::page,
    rights::Rights,
};
