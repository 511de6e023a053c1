//! Functions over slices of `f32`, written so that the compiler makes vector code of them.
//!
//! Loops are plain; functions defined by [`vectored!`] are compiled once for each set of instructions, and the best that the processor
//! has is taken. What they call must be `#[inline(always)]` to profit.

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

/// Values added side by side, so that an addition need not wait for the one before.
const LANES: usize = 16;

/// `e^x`, to 1.5 units in the last place; subnormal results are kept.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Beyond these nothing changes any more: 0 and infinity.
    let held = x.clamp(-104.0, 89.0);
    let n = (held * std::f32::consts::LOG2_E).round_ties_even();
    // ln 2 in two parts: as f32 has it, and what is missing.
    let r = (-n).mul_add(std::f32::consts::LN_2, held);
    let r = (-n).mul_add(-1.904_654_2e-9, r);
    let mut p = 1.984_127e-4f32;
    for coefficient in [1.388_889e-3, 8.333_334e-3, 0.041_666_668, 0.166_666_67, 0.5, 1.0, 1.0] {
        p = p.mul_add(r, coefficient);
    }
    // In two steps: one alone would leave the range before the result does.
    let half = (n * 0.5).floor();
    let e = p * power_of_two(half) * power_of_two(n - half);
    if x.is_nan() { x } else { e }
}

/// 2^n for a whole number from -126 to 127.
#[inline(always)]
fn power_of_two(n: f32) -> f32 {
    // The mantissa's lowest bits of n + 2^23 are n; moved up they are an exponent.
    f32::from_bits(((n + 12_582_912.0 + 127.0).to_bits()) << 23)
}

/// The sum, kept in `f64`.
#[inline(always)]
pub fn sum(values: &[f32], of: impl Fn(f32) -> f64) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += of(*value);
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
        for ((lane, spoilt), value) in lanes.iter_mut().zip(&mut spoilt).zip(chunk) {
            let value = sign * value;
            *lane = if value > *lane { value } else { *lane };
            *spoilt += value * 0.0;
        }
    }
    let has_nan = rest.iter().any(|value| value.is_nan())
        || (spoilt.iter().any(|spoilt| spoilt.is_nan()) && values.iter().any(|value| value.is_nan()));
    if has_nan {
        return f32::NAN;
    }
    rest.iter().map(|value| sign * value).chain(lanes).fold(f32::NEG_INFINITY, f32::max)
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
