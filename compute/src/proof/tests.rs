//! Who is believed, and how often somebody who lies is.

use super::freivalds::{agrees, vector};
use super::*;

fn seed(number: u64) -> [u8; 32] {
    Sha256::digest(number.to_le_bytes()).into()
}

/// A challenge that has been answered on the CPU and committed to.
fn answered(verifier: &mut Verifier, number: u64, size: usize, dtype: DType) -> (Challenge, Vec<f32>) {
    let challenge = verifier
        .issue(seed(number), size, dtype, Instant::now() + Duration::from_secs(60))
        .expect("is issued");
    let product = challenge.answer(&Device::cpu()).expect("is answered");
    (challenge, product)
}

#[test]
fn an_honest_answer_is_accepted_in_every_type_and_size() {
    let mut verifier = Verifier::default();
    for (number, size) in [1, 2, 7, 64, 129, 500].into_iter().enumerate() {
        for dtype in DType::FLOATS {
            let (challenge, product) =
                answered(&mut verifier, number as u64 * 10 + dtype as u64, size, dtype);
            verifier
                .commit(&challenge.seed, challenge.commitment(&product), Instant::now())
                .expect("in time");
            assert_eq!(verifier.check(&challenge.seed, &product, seed(99)), Ok(()), "{challenge:?}");
        }
    }
}

#[test]
fn the_same_matrices_follow_from_a_seed_wherever_they_are_drawn() {
    let challenge = Challenge { seed: seed(5), size: 33, dtype: DType::F32 };
    let mut graph = Graph::new();
    let matrix = graph.add("a", challenge.matrix(0), &[]).expect("fits")[0];
    graph.output(matrix);
    let drawn = Device::cpu().run(&graph, &[]).expect("runs")[0].to_vec::<f32>().expect("is read");
    let again = drawn_matrix(challenge.seed_of(0));
    assert!(drawn.iter().enumerate().all(|(at, value)| *value as i64 == again(at)));
    let different: std::collections::BTreeSet<i64> = (0..1_000).map(again).collect();
    assert_eq!(different.into_iter().collect::<Vec<_>>(), (-3..=3).collect::<Vec<_>>());
}

#[test]
fn what_is_replayed_late_or_swapped_is_refused() {
    let mut verifier = Verifier::default();
    let (challenge, product) = answered(&mut verifier, 1, 40, DType::F32);
    let commitment = challenge.commitment(&product);
    assert_eq!(verifier.check(&challenge.seed, &product, seed(9)), Err(Refusal::Order));
    assert_eq!(verifier.commit(&challenge.seed, commitment, Instant::now()), Ok(()));
    assert_eq!(verifier.commit(&challenge.seed, commitment, Instant::now()), Err(Refusal::Order));
    let mut other = product.clone();
    other[7] += 1.0;
    assert_eq!(verifier.check(&challenge.seed, &other, seed(9)), Err(Refusal::Other));
    // Judged once: the right product does not help any more.
    assert_eq!(verifier.check(&challenge.seed, &product, seed(9)), Err(Refusal::Unknown));
    assert_eq!(verifier.commit(&challenge.seed, commitment, Instant::now()), Err(Refusal::Unknown));

    let late = verifier.issue(seed(2), 8, DType::F32, Instant::now()).expect("is issued");
    let now = Instant::now() + Duration::from_secs(1);
    assert!(matches!(verifier.commit(&late.seed, [0; 32], now), Err(Refusal::Late(_))));
    assert_eq!(verifier.commit(&late.seed, [0; 32], Instant::now()), Err(Refusal::Unknown));
}

#[test]
fn an_answer_to_another_challenge_is_none_to_this() {
    let mut verifier = Verifier::default();
    let (_, product) = answered(&mut verifier, 1, 40, DType::F32);
    let challenge =
        verifier.issue(seed(2), 40, DType::F32, Instant::now() + Duration::from_secs(60)).expect("is issued");
    verifier.commit(&challenge.seed, challenge.commitment(&product), Instant::now()).expect("in time");
    assert_eq!(verifier.check(&challenge.seed, &product, seed(9)), Err(Refusal::Wrong));
}

#[test]
fn what_is_no_whole_number_of_the_right_size_is_refused() {
    let mut verifier = Verifier::default();
    for (number, wrong) in [f32::NAN, f32::INFINITY, 0.5, 1e30, -16_777_216.0].into_iter().enumerate() {
        let (challenge, mut product) = answered(&mut verifier, number as u64, 20, DType::F32);
        product[33] = wrong;
        verifier.commit(&challenge.seed, challenge.commitment(&product), Instant::now()).expect("in time");
        assert_eq!(verifier.check(&challenge.seed, &product, seed(9)), Err(Refusal::Wrong), "{wrong}");
    }
    let (challenge, mut product) = answered(&mut verifier, 77, 20, DType::F32);
    product.pop();
    verifier.commit(&challenge.seed, challenge.commitment(&product), Instant::now()).expect("in time");
    assert_eq!(verifier.check(&challenge.seed, &product, seed(9)), Err(Refusal::Wrong));
}

#[test]
fn sizes_and_types_that_prove_nothing_are_not_issued() {
    let mut verifier = Verifier::default();
    for (size, dtype) in [(0, DType::F32), (SIZE_MAX + 1, DType::F32), (64, DType::I32)] {
        assert!(verifier.issue(seed(1), size, dtype, Instant::now()).is_err());
    }
    verifier.issue(seed(1), 64, DType::F32, Instant::now()).expect("a good one");
    assert!(verifier.issue(seed(1), 64, DType::F32, Instant::now()).is_err(), "the same seed");
    verifier.forget(Instant::now() + Duration::from_secs(1));
    assert_eq!(verifier.commit(&seed(1), [0; 32], Instant::now()), Err(Refusal::Unknown));
}

const N: usize = 6;

/// Small matrices, their product, and the product with one bit of one element flipped.
fn flipped(trial: u64) -> ([i64; N * N], [i64; N * N], [i64; N * N], [i64; N * N]) {
    let draw = |at: usize, stream: u64| {
        i64::from(crate::philox::block(trial, stream + at as u64 / 4 * 8)[at % 4] % 7) - 3
    };
    let (a, b) = (std::array::from_fn(|at| draw(at, 1)), std::array::from_fn(|at| draw(at, 2)));
    let right: [i64; N * N] =
        std::array::from_fn(|at| (0..N).map(|k| a[at / N * N + k] * b[k * N + at % N]).sum());
    let chosen = crate::philox::block(trial, 3);
    let (place, bit) = (chosen[0] as usize % (N * N), chosen[1] % 24);
    let mut wrong = right;
    // A bit of the number's size, which is below 2^24.
    let size = right[place].abs() ^ (1 << bit);
    wrong[place] = if right[place] < 0 { -size } else { size };
    (a, b, right, wrong)
}

/// A million products with one bit flipped. With the prime that is used, none is accepted: 10⁶ · 2⁻⁶¹ of them should be. With primes small
/// enough for it to be seen, as many are as the theorem says.
#[test]
fn a_flipped_bit_is_accepted_with_the_stated_probability() {
    const TRIALS: u64 = 1_000_000;
    let accepted = |counts: (u64, u64, u64), trial: u64| {
        let (a, b, right, wrong) = flipped(trial);
        let agrees_with = |c: &[i64; N * N], r: &[u64; N], p: Prime| match p {
            Prime::Used => agrees::<PRIME>(N, &|at| a[at], &|at| b[at], &|at| c[at], r),
            Prime::Small => agrees::<101>(N, &|at| a[at], &|at| b[at], &|at| c[at], r),
            Prime::Smaller => agrees::<13>(N, &|at| a[at], &|at| b[at], &|at| c[at], r),
        };
        let words: [u64; N] = std::array::from_fn(|at| {
            let block = crate::philox::block(trial, 100 + at as u64);
            u64::from(block[0]) << 32 | u64::from(block[1])
        });
        let below = |p: u64| words.map(|word| word % p);
        assert!(
            agrees_with(&right, &below(PRIME), Prime::Used),
            "an honest product is refused in trial {trial}"
        );
        let count = |p: u64, prime| u64::from(agrees_with(&wrong, &below(p), prime));
        (
            counts.0 + count(PRIME, Prime::Used),
            counts.1 + count(101, Prime::Small),
            counts.2 + count(13, Prime::Smaller),
        )
    };
    let (used, small, smaller) = (0..TRIALS).fold((0, 0, 0), accepted);
    assert_eq!(used, 0);
    // Powers of two are no multiples of these primes, so that a flipped bit is always a difference. Five standard deviations.
    for (seen, prime) in [(small, 101.0), (smaller, 13.0)] {
        let (expected, deviation) =
            (TRIALS as f64 / prime, (TRIALS as f64 / prime * (1.0 - 1.0 / prime)).sqrt());
        assert!(
            (seen as f64 - expected).abs() < 5.0 * deviation,
            "{seen} accepted modulo {prime}, and {expected:.0} expected"
        );
    }
}

enum Prime {
    Used,
    Small,
    Smaller,
}

#[test]
fn vectors_are_drawn_evenly_and_differ_by_seed() {
    let many = vector::<13>(13_000, &seed(1));
    for value in 0..13 {
        let count = many.iter().filter(|drawn| **drawn == value).count();
        assert!((850..1_150).contains(&count), "{value} was drawn {count} times");
    }
    assert_ne!(vector::<PRIME>(8, &seed(1)), vector::<PRIME>(8, &seed(2)));
}

#[test]
fn a_slower_model_does_not_meet_the_deadline_of_a_faster() {
    let message = Duration::from_millis(100);
    let [fast, slow] = ["NVIDIA H100 80GB HBM3", "NVIDIA GeForce RTX 3090"]
        .map(|name| Model::named(name).expect("is in the table"));
    let size = size_for(fast, DType::Bf16, Duration::from_millis(500)).expect("a float");
    let given = deadline(fast, DType::Bf16, size, message).expect("a float");
    // Even at its whole published rate.
    let needed = 2.0 * (size as f64).powi(3) / (slow.half * 1e12);
    assert!(given.as_secs_f64() < needed, "{given:?} for {size}, which takes {needed} s");
    assert!(Model::named("AMD Instinct MI300X").is_none() && size_for(fast, DType::I8, message).is_none());
}
