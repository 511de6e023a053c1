//! Elements as numbers, and back: as they lie in memory, and as people read them.

use crate::reference::round;
use claw_graph::DType;
use half::{bf16, f16};

/// Appends an element as it lies in memory, rounded once.
///
/// # Errors
/// A number that is no integer of the type.
pub fn encode(dtype: DType, value: f64, to: &mut Vec<u8>) -> Result<(), String> {
    if !dtype.is_float() && round(dtype, value) != value {
        return Err(format!("{value} is no {dtype}"));
    }
    match dtype {
        DType::F32 => to.extend((value as f32).to_le_bytes()),
        DType::F16 => to.extend(f16::from_f64(value).to_le_bytes()),
        DType::Bf16 => to.extend(bf16::from_f64(value).to_le_bytes()),
        DType::I32 => to.extend((value as i32).to_le_bytes()),
        DType::I8 => to.extend((value as i8).to_le_bytes()),
    }
    Ok(())
}

/// Elements in words that are read as the same again; `NaN`, `inf` and `-inf` among them.
pub fn words(dtype: DType, bytes: &[u8]) -> impl Iterator<Item = String> {
    bytes.chunks_exact(dtype.size_bytes()).map(move |element| match (dtype, element) {
        (DType::F32, &[a, b, c, d]) => format!("{:?}", f32::from_le_bytes([a, b, c, d])),
        (DType::F16, &[a, b]) => format!("{:?}", f16::from_le_bytes([a, b]).to_f32()),
        (DType::Bf16, &[a, b]) => format!("{:?}", bf16::from_le_bytes([a, b]).to_f32()),
        (DType::I32, &[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]).to_string(),
        (_, element) => i8::from_le_bytes([element[0]]).to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(dtype: DType, values: &[f64]) -> Vec<String> {
        let mut bytes = Vec::new();
        values.iter().try_for_each(|value| encode(dtype, *value, &mut bytes)).unwrap();
        words(dtype, &bytes).collect()
    }

    #[test]
    fn what_is_no_number_and_what_is_endless_has_a_name() {
        let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e300];
        for dtype in DType::FLOATS {
            assert_eq!(told(dtype, &values), ["NaN", "inf", "-inf", "-0.0", "inf"], "{dtype}");
        }
    }

    #[test]
    fn numbers_are_rounded_once_and_told_in_few_digits() {
        assert_eq!(told(DType::F32, &[0.1, 1e30, 16_777_217.0]), ["0.1", "1e30", "16777216.0"]);
        assert_eq!(told(DType::F16, &[65_504.0, 0.5]), ["65504.0", "0.5"]);
        assert_eq!(told(DType::Bf16, &[256.0, 257.0, 3.0]), ["256.0", "256.0", "3.0"]);
    }

    #[test]
    fn integers_are_whole_and_in_range() {
        assert_eq!(told(DType::I32, &[f64::from(i32::MIN), -1.0]), ["-2147483648", "-1"]);
        assert_eq!(told(DType::I8, &[-128.0, 127.0]), ["-128", "127"]);
        for (dtype, value) in
            [(DType::I8, 128.0), (DType::I32, 0.5), (DType::I32, f64::NAN), (DType::I32, 2e9 + 1e9)]
        {
            assert!(encode(dtype, value, &mut Vec::new()).is_err(), "{value} is no {dtype}");
        }
    }
}
