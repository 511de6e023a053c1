//! Functions over slices of `f32`, written so that the compiler makes vector code of them.
//!
//! Loops are plain; functions defined by [`vectored!`] are compiled once for each set of instructions, and the best that the processor
//! has is taken. What they call must be `#[inline(always)]` to profit; what the standard library does once for each few numbers is called
//! each time, so the innermost loops go by number.

/// Defines functions whose loops use the processor's vector instructions.
///
/// Not a function over a closure: the compiler would compile the closure by itself, for the least of all processors.
macro_rules! vectored {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)? $body:block)+) => { $(
        $(#[$meta])*
        $vis fn $name($($argument: $kind),*) $(-> $result)? {
            #[expect(non_camel_case_types, reason = "named as the arguments are")]
            struct Work<$($argument),*>($($argument),*);
            impl pulp::NullaryFnOnce for Work<$($kind),*> {
                type Output = vectored!(@result $($result)?);
                #[inline(always)]
                fn call(self) -> Self::Output {
                    let Work($($argument),*) = self;
                    $body
                }
            }
            pulp::Arch::new().dispatch(Work($($argument),*))
        }
    )+ };
    (@result) => { () };
    (@result $result:ty) => { $result };
}
pub(super) use vectored;

/// Values worked on side by side, so that an addition need not wait for the one before: a vector of the widest kind. More would not leave
/// room for a polynomial's coefficients in the 16 registers of AVX2.
const LANES: usize = 16;
/// Values that are added up in `f32` before their sum goes on in `f64`: 32 in each lane.
const STRETCH: usize = 32 * LANES;

/// Added to a number of a size up to 2^22, it leaves the nearest whole number in the lowest bits of the sum.
const WHOLE: f32 = 12_582_912.0;

/// `e^r` for numbers up to half of ln 2: its Chebyshev series up to the sixth degree, 2e-8 off.
#[inline(always)]
fn exp_near_zero(r: f32) -> f32 {
    let mut p = 1.394_87e-3f32;
    for coefficient in [8.375_213e-3, 0.041_666_217, 0.166_664_14, 0.5, 1.0, 1.0] {
        p = p.mul_add(r, coefficient);
    }
    p
}

/// What is left of `x` without `n` times ln 2. That in two parts: as `f32` has it, and what is missing.
#[inline(always)]
fn without_ln_2(x: f32, n: f32) -> f32 {
    let r = (-n).mul_add(std::f32::consts::LN_2, x);
    (-n).mul_add(-1.904_654_2e-9, r)
}

/// `e^x`, to 1.5 units in the last place; subnormal results are kept.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Beyond these nothing changes any more: 0 and infinity.
    let held = x.clamp(-104.0, 89.0);
    let n = (held * std::f32::consts::LOG2_E).round_ties_even();
    let p = exp_near_zero(without_ln_2(held, n));
    // In two steps: one alone would leave the range before the result does.
    let half = (n * 0.5).floor();
    let e = p * power_of_two(half) * power_of_two(n - half);
    if x.is_nan() { x } else { e }
}

/// `e^x` for numbers up to 0, in half the time of `exp`: what softmax is limited by.
///
/// Below -87.68 it is 0. What saves time costs accuracy that a difference of two `f32` has not got either: the polynomial, of the fifth
/// degree and with the least largest error that 1 and `r` leave it, is 1.05e-7 off, and an ln 2 of one `f32` adds 2.8e-9 times the size of `x`.
#[inline(always)]
pub fn exp_of_negative(x: f32) -> f32 {
    // Of -88 the exponent below is the one that means 0.
    let held = larger(-88.0, x);
    let shifted = held.mul_add(std::f32::consts::LOG2_E, WHOLE + 127.0);
    let scale = f32::from_bits(shifted.to_bits() << 23);
    let r = (shifted - (WHOLE + 127.0)).mul_add(-std::f32::consts::LN_2, held);
    // In pairs, not one power after the other: a shorter way for the processor to wait.
    let square = r * r;
    let pairs = square.mul_add(r.mul_add(8.312_521e-3, 0.041_890_156), r.mul_add(0.166_671_14, 0.499_992_3));
    square.mul_add(pairs, r).mul_add(scale, scale)
}

/// 2^n for a whole number from -126 to 127.
#[inline(always)]
fn power_of_two(n: f32) -> f32 {
    // The mantissa's lowest bits of n + 2^23 are n; moved up they are an exponent.
    f32::from_bits(((n + WHOLE + 127.0).to_bits()) << 23)
}

/// The sum, kept in `f64`.
#[inline(always)]
pub fn sum(values: &[f32], of: impl Fn(f32) -> f64) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += of(chunk[lane]);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|value| of(*value)).sum::<f64>()
}

/// The largest (of the values or their negatives), NaN if there is one. `-inf` for none.
#[inline(always)]
pub fn max(values: &[f32], sign: f32) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    // Not by a lane that holds NaN, which a comparison drops: by a sum that one NaN spoils.
    let mut spoilt = [0.0f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let value = sign * chunk[lane];
            lanes[lane] = larger(value, lanes[lane]);
            spoilt[lane] += value * 0.0;
        }
    }
    let has_nan = rest.iter().any(|value| value.is_nan())
        || (spoilt.iter().any(|spoilt| spoilt.is_nan()) && values.iter().any(|value| value.is_nan()));
    if has_nan {
        return f32::NAN;
    }
    rest.iter().map(|value| sign * value).chain(lanes).fold(f32::NEG_INFINITY, f32::max)
}

/// What becomes of values in each lane, one after the other. `neutral` is a value of which nothing becomes.
#[inline(always)]
fn in_lanes<A: Copy>(values: &[f32], start: A, neutral: f32, of: impl Fn(A, f32) -> A) -> [A; LANES] {
    let mut lanes = [start; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = of(lanes[lane], chunk[lane]);
        }
    }
    let last = padded(rest, neutral);
    for lane in 0..LANES {
        lanes[lane] = of(lanes[lane], last[lane]);
    }
    lanes
}

/// The last few values as many as there are lanes.
#[inline(always)]
fn padded(rest: &[f32], with: f32) -> [f32; LANES] {
    let mut padded = [with; LANES];
    padded[..rest.len()].copy_from_slice(rest);
    padded
}

/// The largest, whatever is with NaN. `-inf` for none.
#[inline(always)]
pub fn largest_number(values: &[f32]) -> f32 {
    let none = f32::NEG_INFINITY;
    let lanes = in_lanes(values, none, none, |lane, value| larger(value, lane));
    lanes.into_iter().fold(none, larger)
}

/// The first if it is larger; the second if either is NaN.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The largest size, NaN if there is one: as bits, sizes are in the order of whole numbers, and NaN is over infinity.
#[inline(always)]
pub fn largest_size(values: &[f32]) -> f32 {
    let lanes = in_lanes(values, 0, 0.0, |lane: u32, value| lane.max(value.abs().to_bits()));
    f32::from_bits(lanes.into_iter().fold(0, u32::max))
}

/// The nearest whole number from -127 to 127; 0 for NaN.
#[inline(always)]
pub fn to_i8(x: f32) -> i8 {
    let whole = x.clamp(-127.0, 127.0) + WHOLE;
    // The lowest byte, which is signed as the number is.
    if x.is_nan() { 0 } else { whole.to_bits() as i8 }
}

/// The exponentials of how far a row's numbers are below its largest, and their sum; and the largest of the next row, which is no longer
/// than this one: so that one is on its way from memory while these are calculated.
#[inline(always)]
pub fn exponentials(row: &[f32], largest: f32, to: &mut [f32], next: &[f32]) -> (f64, f32) {
    let mut sum = [0.0; LANES];
    let mut next_largest = [f32::NEG_INFINITY; LANES];
    let stretches = row.chunks(STRETCH).zip(to.chunks_mut(STRETCH)).zip(next.chunks(STRETCH));
    for ((row, to), next) in stretches {
        let mut sums = [0.0; LANES];
        let (rows, rest) = row.as_chunks::<LANES>();
        let (tos, to_rest) = to.as_chunks_mut::<LANES>();
        let (nexts, next_rest) = next.as_chunks::<LANES>();
        for ((row, to), next) in rows.iter().zip(tos).zip(nexts) {
            fetch_to_write(to);
            exponentials_in_lanes(row, largest, to, next, &mut sums, &mut next_largest);
        }
        if !rest.is_empty() {
            // Of what is put behind the last ones the exponential is 0.
            let (row, next) = (padded(rest, f32::NEG_INFINITY), padded(next_rest, f32::NEG_INFINITY));
            let mut last = [0.0; LANES];
            exponentials_in_lanes(&row, largest, &mut last, &next, &mut sums, &mut next_largest);
            to_rest.copy_from_slice(&last[..to_rest.len()]);
        }
        for lane in 0..LANES {
            sum[lane] += f64::from(sums[lane]);
        }
    }
    (sum.into_iter().sum(), next_largest.into_iter().fold(f32::NEG_INFINITY, larger))
}

/// Has the cache fetch what lies a little after these, which is written soon: or its first write would wait for it.
#[inline(always)]
fn fetch_to_write(to: &[f32; LANES]) {
    /// Elements, 1 KiB. A whole row ahead would drive rows of some length out of the first cache before they are used.
    const AHEAD: usize = 256;
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: a hint, which has no effect but on time, whether or not anything is there.
        #[expect(unsafe_code, reason = "the processor's hints take pointers")]
        unsafe {
            _mm_prefetch::<_MM_HINT_ET0>(to.as_ptr().wrapping_add(AHEAD).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (to, AHEAD);
}

#[inline(always)]
fn exponentials_in_lanes(
    row: &[f32; LANES],
    largest: f32,
    to: &mut [f32; LANES],
    next: &[f32; LANES],
    sums: &mut [f32; LANES],
    next_largest: &mut [f32; LANES],
) {
    for lane in 0..LANES {
        let e = exp_of_negative(row[lane] - largest);
        to[lane] = e;
        sums[lane] += e;
        next_largest[lane] = larger(next[lane], next_largest[lane]);
    }
}

/// Replaces each value by what becomes of it.
#[inline(always)]
pub fn each(values: &mut [f32], of: impl Fn(f32) -> f32) {
    for value in values {
        *value = of(*value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value of the exponent and many mantissas, both signs.
    #[test]
    fn the_exponential_is_within_two_units_of_the_last_place() {
        let worst = (0..=u32::MAX / 977).map(|n| f32::from_bits(n * 977)).filter(|x| !x.is_nan()).map(|x| {
            let (ours, right) = (f64::from(exp(x)), f64::from(x).exp());
            let unit = f64::from(
                f32::from_bits((right as f32).to_bits() | 1) - f32::from_bits((right as f32).to_bits() & !1),
            )
            .abs();
            if right > f64::from(f32::MAX) || x.is_infinite() {
                if f64::from(exp(x)) == f64::from(right as f32) { 0.0 } else { 9.0 }
            } else {
                (ours - right).abs() / unit.max(1e-45)
            }
        });
        let worst = worst.fold(0.0, f64::max);
        assert!(worst <= 2.0, "{worst} units");
        assert!(
            exp(f32::NAN).is_nan() && exp(f32::NEG_INFINITY) == 0.0 && exp(f32::INFINITY) == f32::INFINITY
        );
    }

    #[test]
    fn the_exponential_of_negative_numbers_is_near_down_to_the_smallest_normal_one() {
        for x in
            (0..=u32::MAX / 977 / 2).map(|n| -f32::from_bits(n * 977)).chain([f32::NEG_INFINITY, f32::NAN])
        {
            let (ours, right) = (f64::from(exp_of_negative(x)), f64::from(x).exp());
            let bound = 1.7e-7 - 2.8e-9 * f64::from(x).max(-88.0);
            let is_right = match x {
                _ if x.is_nan() => ours.is_nan(),
                _ if ours == 0.0 => x < -87.68,
                _ => x > -87.69 && (ours - right).abs() <= right * bound,
            };
            assert!(is_right, "{ours:e} for {x}: it is {right:e}");
        }
    }

    #[test]
    fn whole_numbers_of_eight_bits_are_the_nearest() {
        for x in (-2_000..2_000).map(|n| n as f32 / 10.0).chain([f32::INFINITY, f32::NEG_INFINITY, 0.5, 1.5])
        {
            assert_eq!(i32::from(to_i8(x)), x.round_ties_even().clamp(-127.0, 127.0) as i32, "{x}");
        }
        assert_eq!((to_i8(f32::NAN), to_i8(f32::from_bits(0xffc0_0005))), (0, 0));
    }

    #[test]
    fn the_largest_size_is_of_either_sign_and_nan_is_over_all() {
        let mut values: Vec<f32> = (0..77).map(|n| n as f32 - 50.0).collect();
        assert_eq!(largest_size(&values), 50.0);
        values[76] = f32::NEG_INFINITY;
        assert_eq!(largest_size(&values), f32::INFINITY);
        values[3] = -f32::NAN;
        assert!(largest_size(&values).is_nan() && largest_size(&[]) == 0.0);
    }

    #[test]
    fn a_nan_anywhere_is_the_extreme() {
        for length in [1, 5, 16, 33, 40] {
            for place in 0..length {
                let mut values = vec![1.0; length];
                values[place] = f32::NAN;
                assert!(max(&values, 1.0).is_nan() && max(&values, -1.0).is_nan(), "{place} of {length}");
            }
        }
        let infinite = [f32::INFINITY, f32::NEG_INFINITY, 0.0, 1.0].repeat(8);
        assert_eq!((max(&infinite, 1.0), max(&infinite, -1.0)), (f32::INFINITY, f32::INFINITY));
        assert_eq!(max(&[], 1.0), f32::NEG_INFINITY);
    }

    #[test]
    fn sums_of_many_small_numbers_lose_nothing() {
        let values = vec![0.1f32; 1_000_003];
        let exact = f64::from(0.1f32) * 1_000_003.0;
        assert!((sum(&values, f64::from) - exact).abs() / exact < 1e-12);
    }
}
