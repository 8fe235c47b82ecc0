//! Answers on their way to futures of the same thread.

use std::{
    cell::RefCell,
    collections::HashMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

enum Waiter<T> {
    Waiting(Option<Waker>),
    Answered(T),
}

struct Table<T> {
    ticket_next: u64,
    waiting: HashMap<u64, Waiter<T>>,
}

/// Those who wait, by ticket.
pub(crate) struct Waiters<T>(Rc<RefCell<Table<T>>>);

impl<T> Clone for Waiters<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(Table { ticket_next: 0, waiting: HashMap::new() })))
    }
}

impl<T> Waiters<T> {
    /// A ticket, and the future that has its answer. Dropping the future forgets the answer.
    pub(crate) fn wait(&self) -> (u64, Waiting<T>) {
        let mut table = self.0.borrow_mut();
        table.ticket_next += 1;
        let ticket = table.ticket_next;
        table.waiting.insert(ticket, Waiter::Waiting(None));
        (ticket, Waiting { waiters: self.clone(), ticket })
    }

    /// Gives a waiter its answer. Nothing happens when it has gone, or has one.
    pub(crate) fn answer(&self, ticket: u64, answer: T) {
        let mut table = self.0.borrow_mut();
        let Some(waiter) = table.waiting.get_mut(&ticket) else {
            return;
        };
        if matches!(waiter, Waiter::Answered(_)) {
            return;
        }
        let before = std::mem::replace(waiter, Waiter::Answered(answer));
        drop(table);
        if let Waiter::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }

    /// Gives all who wait the same answer.
    pub(crate) fn answer_all(&self, answer: impl Fn() -> T) {
        let tickets: Vec<u64> = self.0.borrow().waiting.keys().copied().collect();
        for ticket in tickets {
            self.answer(ticket, answer());
        }
    }

    /// How many wait.
    pub(crate) fn count(&self) -> usize {
        self.0.borrow().waiting.len()
    }
}

/// See [`Waiters::wait`].
pub(crate) struct Waiting<T> {
    waiters: Waiters<T>,
    ticket: u64,
}

impl<T> Future for Waiting<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut table = self.waiters.0.borrow_mut();
        match table.waiting.remove(&self.ticket) {
            Some(Waiter::Answered(answer)) => Poll::Ready(answer),
            Some(Waiter::Waiting(_)) | None => {
                let waker = Some(context.waker().clone());
                table.waiting.insert(self.ticket, Waiter::Waiting(waker));
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        self.waiters.0.borrow_mut().waiting.remove(&self.ticket);
    }
}
