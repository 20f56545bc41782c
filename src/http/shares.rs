//! Divides a limited resource among clients, so that one of them cannot take all of it: connections, the memory of unread
//! responses, and the table of recent refusals.
//!
//! No client has a fixed share, because one that is alone should not be slowed down. A client may hold as much as stays free
//! (dynamic thresholds, Choudhury and Hahne 1998): of greedy clients that come one after another, the first gets a half, the next a
//! quarter, and so on.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
};

use super::extract::client_ip::ClientKey;

/// How many units a client may hold for each unit that stays free.
const HELD_PER_FREE_MAX: u64 = 1;

/// A resource with a fixed number of units.
#[derive(Clone, Debug)]
pub struct Shares(Arc<Mutex<Units>>);

#[derive(Debug)]
struct Units {
    free: u64,
    held: HashMap<ClientKey, u64>,
}

/// Units that a client holds until it is dropped.
#[derive(Debug)]
pub struct Reservation {
    shares: Shares,
    client: Option<ClientKey>,
    units: u64,
}

impl Shares {
    /// A resource of which nothing is reserved.
    pub fn new(units: u64) -> Self {
        Self(Arc::new(Mutex::new(Units { free: units, held: HashMap::new() })))
    }

    /// Reserves `units` for a client. Without a client only the free units limit the reservation, as for the connections of a
    /// trusted proxy, which belong to many clients. `None` if the units are not free, or the client holds its share.
    pub fn try_reserve(&self, client: Option<ClientKey>, units: u64) -> Option<Reservation> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let free = all.free.checked_sub(units)?;
        if let Some(client) = &client {
            let held = all.held.get(client).copied().unwrap_or(0).saturating_add(units);
            if held > free.saturating_mul(HELD_PER_FREE_MAX) {
                return None;
            }
            all.held.insert(client.clone(), held);
        }
        all.free = free;
        Some(Reservation { shares: self.clone(), client, units })
    }
}

impl Reservation {
    /// Gives back what exceeds `units`.
    pub fn shrink(&mut self, units: u64) {
        let excess = self.units.saturating_sub(units);
        self.units -= excess;
        self.give_back(excess);
    }

    fn give_back(&self, units: u64) {
        let mut all = self.shares.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.free += units;
        if let Some(client) = self.client.clone()
            && let Entry::Occupied(mut held) = all.held.entry(client)
        {
            *held.get_mut() -= units;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back(self.units);
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    fn client(name: &str) -> Option<ClientKey> {
        Some(ClientKey::Caller(name.into()))
    }

    /// Reserves one unit at a time until the client gets no more.
    fn take_all(shares: &Shares, name: Option<ClientKey>) -> Vec<Reservation> {
        iter::from_fn(|| shares.try_reserve(name.clone(), 1)).collect()
    }

    #[test]
    fn each_greedy_client_leaves_as_much_free_as_it_holds() {
        let shares = Shares::new(120);
        let first = take_all(&shares, client("first"));
        let second = take_all(&shares, client("second"));
        let third = take_all(&shares, client("third"));
        assert_eq!([first.len(), second.len(), third.len()], [60, 30, 15]);
        assert!(shares.try_reserve(client("fourth"), 7).is_some());
        drop(first);
        assert_eq!(take_all(&shares, client("fourth")).len(), 37);
        drop((second, third));
        assert!(shares.0.lock().expect("a lock").held.is_empty(), "clients without a reservation are forgotten");
    }

    #[test]
    fn a_reservation_gives_back_what_it_does_not_need() {
        let shares = Shares::new(10);
        let mut reservation = shares.try_reserve(client("one"), 5).expect("5 of 10");
        assert!(shares.try_reserve(client("two"), 3).is_none());
        reservation.shrink(7);
        reservation.shrink(2);
        assert!(shares.try_reserve(client("two"), 4).is_some());
        drop(reservation);
        assert!(shares.0.lock().expect("a lock").held.is_empty());
    }

    #[test]
    fn a_reservation_without_a_client_may_take_everything() {
        let shares = Shares::new(10);
        assert!(shares.try_reserve(client("one"), 6).is_none());
        assert_eq!(take_all(&shares, None).len(), 10);
        assert!(shares.try_reserve(client("one"), 0).is_some());
    }
}
