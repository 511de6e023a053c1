//! Asks the kernel for anything: what a container may and may not do shows in the answers.
#![expect(unsafe_code, reason = "the standard library makes no system call by number")]

use std::{ffi::c_long, io};

use super::{complain, say};

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// `syscall NUMBER [ARGUMENT...]`, all in decimal or with `0x`. Arguments are numbers: pointers are for programs.
pub(super) fn call(arguments: &[String]) -> Result<u8, String> {
    let mut numbers = arguments.iter().map(|text| number(text));
    let asked = numbers.next().ok_or("syscall: NUMBER is required")??;
    let mut given = [0; 6];
    for (place, value) in given.iter_mut().zip(numbers) {
        *place = value?;
    }
    let [a, b, c, d, e, f] = given;
    // SAFETY: what the kernel does with plain numbers is no danger to the memory of this process, which ends after it.
    let answer = unsafe { syscall(asked, a, b, c, d, e, f) };
    if answer == -1 {
        complain(&io::Error::last_os_error().to_string());
        return Ok(1);
    }
    say(&answer.to_string());
    Ok(0)
}

fn number(text: &str) -> Result<c_long, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => c_long::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| format!("syscall: {text}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        assert_eq!((number("12"), number("0x1f"), number("-1")), (Ok(12), Ok(31), Ok(-1)));
        assert!(number("many").unwrap_err().contains("many"));
    }

    #[test]
    fn a_call_that_is_none_is_an_error() {
        assert_eq!(call(&["100000".to_owned()]), Ok(1));
        assert!(call(&[]).is_err());
    }
}
