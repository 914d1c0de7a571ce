//! Slots that cases are computed in: as many at once as there are slots, each with a child that is started when first
//! needed and replaced after a fault.

use std::sync::{Condvar, Mutex, PoisonError};

use super::super::CandidateError;

/// The slots that no case is computed in now.
pub(in crate::candidate) struct Pool<C> {
    idle: Mutex<Vec<Slot<C>>>,
    returned: Condvar,
}

struct Slot<C> {
    number: usize,
    child: Option<C>,
}

/// What becomes of a child after a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::candidate) enum After {
    /// It is asked again.
    Keep,
    /// It is ended, and the next case gets a new one.
    Replace,
}

impl<C> Pool<C> {
    /// `slots` of them, the first to be taken with the child `first`.
    pub(in crate::candidate) fn new(slots: usize, first: Option<C>) -> Self {
        // Taken from the end.
        let mut idle: Vec<Slot<C>> = (0..slots.max(1)).rev().map(|number| Slot { number, child: None }).collect();
        idle.last_mut().expect("one at least").child = first;
        Pool { idle: Mutex::new(idle), returned: Condvar::new() }
    }

    /// Waits for a slot, the one used last first, starts a child there if it has none, and has it do `work`.
    pub(in crate::candidate) fn ask<T>(
        &self,
        start: impl FnOnce(usize) -> Result<C, CandidateError>,
        work: impl FnOnce(&mut C) -> (After, Result<T, CandidateError>),
    ) -> Result<T, CandidateError> {
        let mut taken = self.take();
        let slot = taken.slot.as_mut().expect("not yet returned");
        let mut child = slot.child.take().map_or_else(|| start(slot.number), Ok)?;
        let (after, result) = work(&mut child);
        if after == After::Keep {
            slot.child = Some(child);
        }
        result
    }

    fn take(&self) -> Taken<'_, C> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(slot) = idle.pop() {
                return Taken { pool: self, slot: Some(slot) };
            }
            idle = self.returned.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A slot in use, returned however the use ends.
struct Taken<'a, C> {
    pool: &'a Pool<C>,
    slot: Option<Slot<C>>,
}

impl<C> Drop for Taken<'_, C> {
    fn drop(&mut self) {
        self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(self.slot.take());
        self.pool.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Cause;
    use super::*;

    /// Asks for a case in which `work` is done; the slot and the child, counted from 1, that it was done by.
    fn ask(pool: &Pool<(usize, usize)>, started: &Mutex<usize>, after: After) -> (usize, usize) {
        let start = |slot| {
            let mut started = started.lock().unwrap();
            *started += 1;
            Ok((slot, *started))
        };
        pool.ask(start, |child| (after, Ok(*child))).unwrap()
    }

    #[test]
    fn a_child_is_asked_again_until_it_is_replaced() {
        let (pool, started) = (Pool::new(2, None), Mutex::new(0));
        assert_eq!(ask(&pool, &started, After::Keep), (0, 1));
        assert_eq!(ask(&pool, &started, After::Replace), (0, 1));
        assert_eq!(ask(&pool, &started, After::Keep), (0, 2));
        let with_one: Pool<(usize, usize)> = Pool::new(3, Some((7, 7)));
        assert_eq!(ask(&with_one, &started, After::Keep), (7, 7));
    }

    #[test]
    fn slots_are_taken_in_turn_and_returned_even_by_a_panic() {
        let (pool, started) = (Pool::new(2, None), Mutex::new(0));
        let inner = |_: &mut (usize, usize)| (After::Keep, Ok(ask(&pool, &started, After::Keep)));
        // While slot 0 is in use, slot 1 is taken.
        assert_eq!(pool.ask(|slot| Ok((slot, 0)), inner).unwrap(), (1, 1));
        let panics = std::panic::AssertUnwindSafe(|| pool.ask::<()>(|slot| Ok((slot, 0)), |_| panic!("planted")));
        assert!(std::panic::catch_unwind(panics).is_err());
        let refused = pool.ask::<()>(|_| Err(CandidateError::Crash(Cause::Unnamed, String::new())), |_| unreachable!());
        assert!(refused.is_err());
        assert_eq!(pool.idle.lock().unwrap().len(), 2);
    }
}
