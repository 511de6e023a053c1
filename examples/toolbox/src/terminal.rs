//! What a program may ask about its terminal.
#![expect(unsafe_code, reason = "the standard library does not know the size of a terminal")]

use std::{ffi::c_int, fs, io, io::IsTerminal as _};

/// Asks a terminal for its size. Source: asm-generic/ioctls.h.
const TIOCGWINSZ: u64 = 0x5413;

unsafe extern "C" {
    fn ioctl(file: c_int, request: u64, ...) -> c_int;
}

/// Rows and columns of the terminal that standard input is.
fn size() -> io::Result<(u16, u16)> {
    let mut size = [0_u16; 4];
    // SAFETY: the kernel writes a winsize, which is four such numbers.
    if unsafe { ioctl(0, TIOCGWINSZ, size.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((size[0], size[1]))
}

/// `stty size`.
pub(crate) fn stty(arguments: &[String]) -> Result<u8, String> {
    if arguments != ["size"] {
        return Err("stty: only `stty size` is known here".to_owned());
    }
    let (rows, columns) = size().map_err(|error| format!("stty: {error}"))?;
    crate::say(&format!("{rows} {columns}"));
    Ok(0)
}

/// `tty`: the name of the terminal.
pub(crate) fn tty() -> u8 {
    let name = fs::read_link("/proc/self/fd/0").ok().filter(|_| io::stdin().is_terminal());
    crate::say(&name.as_ref().map_or("not a tty".into(), |name| name.to_string_lossy()));
    u8::from(name.is_none())
}
