//! Quantities against arithmetic on their digits, and their canonical form against itself.

use claw_schemas::quantity::{Family, Quantity, canonical};

use crate::tape::Tape;

/// Suffix, and what it multiplies thousandths by: numerator, denominator.
const SUFFIXES: [(&str, i128, i128); 16] = [
    ("", 1000, 1),
    ("m", 1, 1),
    ("u", 1, 1000),
    ("n", 1, 1_000_000),
    ("k", 1_000_000, 1),
    ("M", 1_000_000_000, 1),
    ("G", 1_000_000_000_000, 1),
    ("T", 1_000_000_000_000_000, 1),
    ("P", 1_000_000_000_000_000_000, 1),
    ("Ki", 1_024_000, 1),
    ("Mi", 1_048_576_000, 1),
    ("Gi", 1_073_741_824_000, 1),
    ("Ti", 1_099_511_627_776_000, 1),
    ("e3", 1_000_000, 1),
    ("E-2", 10, 1),
    ("e+0", 1000, 1),
];

/// A number that is put together from digits, then whatever is left as a text of its own.
pub fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    let (sign, factor) = tape.pick(&[("", 1), ("+", 1), ("-", -1)]);
    let whole: String = (0..1 + tape.below(9)).map(|_| char::from(b'0' + tape.byte() % 10)).collect();
    let fraction: String = (0..tape.below(7)).map(|_| char::from(b'0' + tape.byte() % 10)).collect();
    let (suffix, numerator, denominator) = tape.pick(&SUFFIXES);
    let point = if fraction.is_empty() && tape.flag() { "" } else { "." };
    let text = format!("{sign}{whole}{point}{fraction}{suffix}");
    let mantissa: i128 = format!("{whole}{fraction}").parse().expect("digits are a number");
    let denominator = denominator * 10_i128.pow(fraction.len() as u32);
    let product = mantissa * numerator;
    let expected = factor * (product / denominator + i128::from(product % denominator != 0));
    assert_eq!(text.parse::<Quantity>().map(Quantity::milli), Ok(expected), "{text}");
    holds_its_form(&text);
    if let Ok(text) = std::str::from_utf8(tape.rest()) {
        holds_its_form(text);
    }
}

/// The canonical form is the same amount in the same family, and its own canonical form.
fn holds_its_form(text: &str) {
    let Ok(quantity) = text.parse::<Quantity>() else {
        assert_eq!(canonical(text), None, "{text:?}");
        return;
    };
    let written = canonical(text).unwrap_or_else(|| panic!("{text:?} has no canonical form"));
    assert_eq!(written.parse(), Ok(quantity), "{text:?} became {written:?}");
    assert_eq!(canonical(&written).as_deref(), Some(&*written), "{text:?}");
    for family in [Family::Decimal, Family::Binary, Family::Exponent] {
        assert_eq!(quantity.text(family).parse(), Ok(quantity), "{text:?} as {family:?}");
    }
    let rounded = Quantity::from_units(quantity.units());
    assert!(rounded >= quantity && rounded.milli() - quantity.milli() < 1000, "{text:?}");
}
