//! What a pod needs at any one time, from what its containers need: upstream's rule, for whoever adds amounts up.

/// Amounts of several resources.
pub trait Amounts: Clone + Default {
    /// Adds other amounts.
    fn add(&mut self, more: &Self);

    /// Raises each amount to at least that of another.
    fn raise(&mut self, floor: &Self);
}

/// The greater of all containers together (with the init containers that go on beside them) and each one-shot init container
/// in its turn. `init` says of each whether it goes on.
pub fn at_once<A: Amounts>(init: impl Iterator<Item = (A, bool)>, containers: impl Iterator<Item = A>) -> A {
    let (mut beside, mut peak) = (A::default(), A::default());
    for (needs, goes_on) in init {
        let mut turn = beside.clone();
        turn.add(&needs);
        peak.raise(&turn);
        if goes_on {
            beside = turn;
        }
    }
    let mut total = beside;
    containers.for_each(|needs| total.add(&needs));
    total.raise(&peak);
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct One(u32);

    impl Amounts for One {
        fn add(&mut self, more: &Self) {
            self.0 += more.0;
        }

        fn raise(&mut self, floor: &Self) {
            self.0 = self.0.max(floor.0);
        }
    }

    #[test]
    fn one_shot_containers_count_by_their_peak_and_others_by_their_sum() {
        for (init, containers, expected) in [
            (&[][..], &[3, 1][..], 4),
            (&[(5, false), (2, false)], &[3, 1], 5),
            (&[(2, true), (1, false)], &[3, 1], 6),
            (&[(2, true), (9, false), (1, true)], &[3, 1], 11),
            (&[(9, false), (2, true)], &[], 9),
        ] {
            let init = init.iter().map(|(needs, goes_on)| (One(*needs), *goes_on));
            assert_eq!(at_once(init, containers.iter().map(|needs| One(*needs))).0, expected);
        }
    }
}
