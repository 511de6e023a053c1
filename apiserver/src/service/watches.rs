//! Who may have how many watches open.
//!
//! A watch may live for a day, so the queue that requests stand in does not bound them: without a share for each user,
//! one of them could leave no watch to anybody, controllers included.

use std::{collections::HashMap, sync::Arc};

use claw_schemas::ApiError;
use parking_lot::Mutex;

use super::limits::{WATCH_RETRY_AFTER_S, WATCHES_A_USER_MAX, WATCHES_OPEN_MAX, WATCHES_RESERVED};
use crate::auth::Identity;

/// All open watches.
#[derive(Default)]
pub(super) struct Watches(Mutex<Open>);

#[derive(Default)]
struct Open {
    count: usize,
    /// Of users who have any. Masters are not counted here: nothing but the whole bounds them.
    by_user: HashMap<Arc<str>, usize>,
}

/// The right to an open watch, until dropped.
pub(super) struct Watching {
    watches: Arc<Watches>,
    /// Whose share it is of.
    user: Option<Arc<str>>,
}

impl Watches {
    /// How many are open.
    pub fn count(&self) -> usize {
        self.0.lock().count
    }

    /// Lets one more watch be opened.
    pub fn enter(self: &Arc<Self>, who: &Identity) -> Result<Watching, ApiError> {
        let mut open = self.0.lock();
        let reserved = if who.is_master() { 0 } else { WATCHES_RESERVED };
        if open.count >= WATCHES_OPEN_MAX - reserved {
            return Err(full(&format!("{} watches are open, which is the limit of this server", open.count)));
        }
        let user = if who.is_master() { None } else { Some(open.take_share(&who.user)?) };
        open.count += 1;
        Ok(Watching { watches: self.clone(), user })
    }
}

impl Open {
    fn take_share(&mut self, user: &str) -> Result<Arc<str>, ApiError> {
        let user: Arc<str> = match self.by_user.get_key_value(user) {
            Some((known, _)) => known.clone(),
            None => user.into(),
        };
        let share = self.by_user.entry(user.clone()).or_default();
        if *share >= WATCHES_A_USER_MAX {
            return Err(full(&format!(
                "\"{user}\" has {share} watches open, which is the limit for one user"
            )));
        }
        *share += 1;
        Ok(user)
    }
}

fn full(why: &str) -> ApiError {
    ApiError::too_many_requests(format!("{why}; close some, or try again later"), WATCH_RETRY_AFTER_S)
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut open = self.watches.0.lock();
        open.count -= 1;
        let Some(user) = &self.user else { return };
        if let Some(share) = open.by_user.get_mut(user) {
            *share -= 1;
            if *share == 0 {
                open.by_user.remove(user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(watches: &Arc<Watches>, who: &Identity, count: usize) -> Vec<Watching> {
        (0..count).map(|_| watches.enter(who).unwrap()).collect()
    }

    #[test]
    fn one_user_leaves_watches_to_the_others() {
        let watches = Arc::new(Watches::default());
        let (flood, quiet) = (Identity::of("flood", &[]), Identity::of("quiet", &[]));
        let mut taken = open(&watches, &flood, WATCHES_A_USER_MAX);
        let error = watches.enter(&flood).err().unwrap();
        assert_eq!((error.code, error.details.retry_after_seconds), (429, WATCH_RETRY_AFTER_S));
        drop(watches.enter(&quiet).unwrap());
        taken.pop();
        taken.push(watches.enter(&flood).unwrap());
        drop(taken);
        let state = watches.0.lock();
        assert!(state.count == 0 && state.by_user.is_empty());
    }

    #[test]
    fn all_users_together_leave_some_to_the_control_plane() {
        let watches = Arc::new(Watches::default());
        let mut taken = Vec::new();
        while taken.len() < WATCHES_OPEN_MAX - WATCHES_RESERVED {
            let user = Identity::of(&(taken.len() / WATCHES_A_USER_MAX).to_string(), &[]);
            taken.push(watches.enter(&user).unwrap());
        }
        assert_eq!(watches.enter(&Identity::of("late", &[])).err().unwrap().code, 429);
        let _control_plane = open(&watches, &Identity::loopback("controllers"), WATCHES_RESERVED);
        assert_eq!(watches.enter(&Identity::loopback("controllers")).err().unwrap().code, 429);
    }
}
