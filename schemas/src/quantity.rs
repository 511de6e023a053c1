//! Resource quantities (`500m`, `1.5Gi`, `2e3`) as exact integers.
//!
//! Grammar: Kubernetes `resource.Quantity`. Values are kept in thousandths, so nothing is ever a float.

use std::str::FromStr;

/// Digits of a number, with its point: as many as an `i128` has, in which sums are done, and a few zeros.
const NUMBER_BYTES_MAX: usize = 48;

/// The largest exponent: more is more than an `i128` holds.
const POWER_MAX: i32 = 38;

/// An exact amount in thousandths of its unit (milli-cores, milli-bytes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    milli: i128,
}

/// The text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a quantity: use a number with an optional suffix, such as 500m, 2, 1.5Gi or 128M")]
pub struct QuantityError(String);

impl Quantity {
    /// From thousandths.
    pub const fn from_milli(milli: i128) -> Self {
        Self { milli }
    }

    /// From whole units.
    pub const fn from_units(units: i128) -> Self {
        Self { milli: units * 1000 }
    }

    /// Thousandths.
    pub const fn milli(self) -> i128 {
        self.milli
    }

    /// Whole units, rounded up as Kubernetes does.
    pub const fn units(self) -> i128 {
        let (whole, rest) = (self.milli / 1000, self.milli % 1000);
        if rest > 0 { whole + 1 } else { whole }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text.trim()).ok_or_else(|| QuantityError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Quantity> {
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let split = unsigned.find(|c| !digits(c)).unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > NUMBER_BYTES_MAX
    {
        return None;
    }
    // value = mantissa × 10^-places; the suffix multiplies by numerator / denominator
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (numerator, denominator) = multiplier(suffix)?;
    let denominator = denominator.checked_mul(10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    let scaled = mantissa.checked_mul(numerator)?.checked_mul(1000)?;
    // Finer than a thousandth rounds up, so that a request is never understated.
    let milli = scaled.checked_add(denominator - 1)? / denominator;
    Some(Quantity { milli: sign * milli })
}

fn multiplier(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1024_i128.pow(power), 1));
    let decimal = |power: u32| Some((10_i128.pow(power), 1));
    match suffix {
        "" => decimal(0),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1_000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let size = 10_i128.checked_pow(power.unsigned_abs()).filter(|_| power.abs() <= POWER_MAX)?;
            Some(if power < 0 { (1, size) } else { (size, 1) })
        }
    }
}

/// The suffixes in which a quantity is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// `m`, `k`, `M`, ...
    #[default]
    Decimal,
    /// `Ki`, `Mi`, ...
    Binary,
    /// `e3`
    Exponent,
}

impl Family {
    /// That of a text.
    pub fn of(text: &str) -> Self {
        let text = text.trim();
        let suffix = text.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-'));
        match suffix.as_bytes() {
            [_, b'i'] => Self::Binary,
            [b'e' | b'E', _, ..] => Self::Exponent,
            _ => Self::Decimal,
        }
    }
}

impl Quantity {
    /// The canonical text: no fraction, and the largest suffix of the family that keeps it exact.
    pub fn text(self, family: Family) -> String {
        let milli = self.milli;
        match family {
            // Below 1024 the binary family has no suffix and, for a fraction, borrows the decimal one.
            Family::Binary if milli % 1000 == 0 && milli.unsigned_abs() >= 1_024_000 => {
                scaled(milli / 1000, 1024, &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
            }
            Family::Exponent => exponent(milli),
            Family::Binary | Family::Decimal => scaled(milli, 1000, &["m", "", "k", "M", "G", "T", "P", "E"]),
        }
    }
}

/// The canonical text of a quantity, in the family that it was written in. `None` when the text is not a quantity.
pub fn canonical(text: &str) -> Option<String> {
    let quantity: Quantity = text.trim().parse().ok()?;
    Some(quantity.text(Family::of(text)))
}

/// Divides by `base` as often as it goes without a rest, one suffix a step.
fn scaled(mut amount: i128, base: i128, suffixes: &[&str]) -> String {
    let mut step = 0;
    while amount != 0 && amount % base == 0 && step + 1 < suffixes.len() {
        amount /= base;
        step += 1;
    }
    if amount == 0 { "0".to_owned() } else { format!("{amount}{}", suffixes[step]) }
}

fn exponent(milli: i128) -> String {
    let (mut amount, mut power) = (milli, -3);
    while amount != 0 && amount % 1000 == 0 {
        amount /= 1000;
        power += 3;
    }
    match (amount, power) {
        (0, _) => "0".to_owned(),
        (_, 0) => amount.to_string(),
        _ => format!("{amount}e{power}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_have_their_documented_size() {
        for (text, milli) in [
            ("0", 0),
            ("1", 1000),
            ("500m", 500),
            ("0.5", 500),
            (".5", 500),
            ("1.5Gi", 1_610_612_736_000),
            ("128M", 128_000_000_000),
            ("2e3", 2_000_000),
            ("1E", 1_000_000_000_000_000_000_000),
            ("100n", 1),
            ("-2", -2000),
            ("3e21", 3_000_000_000_000_000_000_000_000),
            ("1072903299782269696858915m", 1_072_903_299_782_269_696_858_915),
        ] {
            assert_eq!(text.parse::<Quantity>().map(Quantity::milli), Ok(milli), "{text}");
        }
    }

    #[test]
    fn text_that_is_no_quantity_is_refused() {
        for text in [
            "",
            "abc",
            "1.2.3",
            "1gi",
            "--1",
            "1e99",
            "Gi",
            "1 Gi",
            "1e39",
            "1e-39",
            "99999999999999999999999999E",
        ] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn units_round_up() {
        assert_eq!("1500m".parse::<Quantity>().map(Quantity::units), Ok(2));
        assert_eq!("2".parse::<Quantity>().map(Quantity::units), Ok(2));
    }

    #[test]
    fn canonical_text_has_no_fraction_and_the_largest_suffix() {
        for (text, expected) in [
            ("0", "0"),
            ("0m", "0"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("1500", "1500"),
            ("2000", "2k"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1000Ki", "1000Ki"),
            ("0.5Ki", "512"),
            ("128M", "128M"),
            ("1e3", "1e3"),
            ("12e2", "1200"),
            ("-2000m", "-2"),
            ("0.1m", "1m"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(canonical("one"), None);
    }
}
