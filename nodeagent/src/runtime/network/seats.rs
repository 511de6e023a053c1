//! Seats for those who come from the pods of a node: so many in all, and of those a share for each address, so that nobody shuts
//! the others out.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All seats.
pub(super) struct Seats {
    free: Arc<Semaphore>,
    share: usize,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One, until it is dropped.
pub(super) struct Seat {
    _of_all: OwnedSemaphorePermit,
    address: IpAddr,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Seats {
    /// So many, and so many for each address.
    pub(super) fn new(all: usize, share: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(all)), share, taken: Arc::default() }
    }

    /// Waits until one is free, for whoever comes next.
    pub(super) async fn free(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).acquire_owned().await.ok()
    }

    /// Gives it to an address, unless that has its share.
    pub(super) fn give(&self, seat: OwnedSemaphorePermit, address: IpAddr) -> Option<Seat> {
        let mut taken = self.taken.lock();
        let count = taken.entry(address).or_default();
        if *count >= self.share {
            return None;
        }
        *count += 1;
        Some(Seat { _of_all: seat, address, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_has_its_share_and_others_have_what_is_left() {
        let seats = Seats::new(3, 2);
        let greedy = IpAddr::from([10, 88, 0, 2]);
        let modest = IpAddr::from([10, 88, 0, 3]);
        let take = async |address| seats.give(seats.free().await.unwrap(), address);
        let mut held = vec![take(greedy).await.unwrap(), take(greedy).await.unwrap()];
        assert!(take(greedy).await.is_none(), "and nothing is lost by the try");
        held.push(take(modest).await.unwrap());
        assert!(Arc::clone(&seats.free).try_acquire_owned().is_err(), "all are taken");
        held.clear();
        assert!(take(greedy).await.is_some());
        assert!(seats.taken.lock().is_empty(), "nobody is remembered who has none");
    }
}
