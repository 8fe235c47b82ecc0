//! How many connections a node takes: in all, and from one address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Counts the connections of a node against its bounds. Shared by all shards, because
/// SO_REUSEPORT spreads the connections of one address over them; touched at accept and close
/// only. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    total_max: usize,
    per_address_max: usize,
    total: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// A place that a connection holds; dropped with it.
#[derive(Debug)]
pub(crate) struct Permit {
    inner: Arc<Inner>,
    /// `None` when addresses are not counted.
    address: Option<Box<IpAddr>>,
}

impl Admission {
    /// Bounds of a node; 0 means no bound. An IPv6 address counts by its /64, which is what one
    /// customer has.
    pub fn new(total_max: usize, per_address_max: usize) -> Self {
        Self(Arc::new(Inner {
            total_max,
            per_address_max,
            total: AtomicUsize::new(0),
            by_address: Mutex::new(HashMap::new()),
        }))
    }

    /// Connections that hold a place now.
    pub fn count(&self) -> usize {
        self.0.total.load(Ordering::Relaxed)
    }

    /// Takes a place, or `None` when a bound is reached.
    pub(crate) fn admit(&self, address: IpAddr) -> Option<Permit> {
        let inner = &self.0;
        let before = inner.total.fetch_add(1, Ordering::Relaxed);
        let mut permit = Permit { inner: Arc::clone(inner), address: None };
        if inner.total_max > 0 && before >= inner.total_max {
            return None;
        }
        if inner.per_address_max > 0 {
            let address = group(address);
            let mut by_address = inner.lock();
            let count = by_address.entry(address).or_default();
            if *count >= inner.per_address_max {
                drop(by_address);
                return None;
            }
            *count += 1;
            permit.address = Some(Box::new(address));
        }
        Some(permit)
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        // The map is whole after every statement that changes it.
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inner.total.fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = &self.address {
            let mut by_address = self.inner.lock();
            if let Some(count) = by_address.get_mut(address.as_ref()) {
                *count -= 1;
                if *count == 0 {
                    by_address.remove(address.as_ref());
                }
            }
        }
    }
}

fn group(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        },
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_comes_back_when_its_holder_goes() {
        let admission = Admission::new(2, 0);
        let one = admission.admit(ip("10.0.0.1")).unwrap();
        let _two = admission.admit(ip("10.0.0.1")).unwrap();
        assert!(admission.admit(ip("10.0.0.2")).is_none());
        assert_eq!(admission.count(), 2);
        drop(one);
        assert!(admission.admit(ip("10.0.0.2")).is_some());
    }

    #[test]
    fn one_address_cannot_take_all_places() {
        let admission = Admission::new(0, 2);
        let held: Vec<_> = (0..2).map(|_| admission.admit(ip("10.0.0.1"))).collect();
        assert!(admission.admit(ip("10.0.0.1")).is_none());
        assert!(admission.admit(ip("::ffff:10.0.0.1")).is_none());
        assert!(admission.admit(ip("10.0.0.2")).is_some());
        drop(held);
        assert!(admission.admit(ip("10.0.0.1")).is_some());
        assert_eq!(admission.count(), 0);
    }

    #[test]
    fn an_ipv6_customer_is_a_64() {
        let admission = Admission::new(0, 1);
        let _held = admission.admit(ip("2001:db8::1")).unwrap();
        assert!(admission.admit(ip("2001:db8::ffff:2")).is_none());
        assert!(admission.admit(ip("2001:db8:0:1::1")).is_some());
    }
}
