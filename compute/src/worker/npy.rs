//! NumPy's file format, as far as tensors need it: a header that says type, order and shape, then elements. Source: NEP 1, and its
//! sequels for versions 2 (longer headers) and 3 (UTF-8).

use claw_graph::{DType, TensorType};
use std::io::{self, Read, Write};

const MAGIC: &[u8] = b"\x93NUMPY";

/// Longest header that is read; those of plain tensors have some hundred bytes.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// Headers are padded so that elements begin at a multiple of this.
const ALIGNMENT: usize = 64;

/// What NumPy calls a type.
///
/// # Errors
/// For those it has not.
pub fn descriptor(dtype: DType) -> Result<&'static str, String> {
    match dtype {
        DType::F32 => Ok("<f4"),
        DType::F16 => Ok("<f2"),
        DType::I32 => Ok("<i4"),
        DType::I8 => Ok("|i1"),
        DType::Bf16 => {
            Err("NumPy has no bf16: cast to f32, or leave out .npy for elements as they lie in memory"
                .to_owned())
        }
    }
}

/// Writes what comes before the elements.
///
/// # Errors
/// When the type is none of NumPy's, and what the writer says.
pub fn write_header(of: &TensorType, to: &mut impl Write) -> io::Result<()> {
    let descriptor = descriptor(of.dtype).map_err(io::Error::other)?;
    let extents: String = of.shape.iter().map(|extent| format!("{extent}, ")).collect();
    // A tuple of one has a comma, the others may have none at their end.
    let extents = if of.shape.rank() == 1 { extents.trim_end() } else { extents.trim_end_matches(", ") };
    let mut header = format!("{{'descr': '{descriptor}', 'fortran_order': False, 'shape': ({extents}), }}");
    let begins = MAGIC.len() + 4;
    let padded = (begins + header.len() + 1).next_multiple_of(ALIGNMENT);
    header.extend(std::iter::repeat_n(' ', padded - begins - header.len() - 1));
    header.push('\n');
    let length = u16::try_from(header.len()).map_err(io::Error::other)?;
    to.write_all(MAGIC)?;
    to.write_all(&[1, 0])?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(header.as_bytes())
}

/// Reads what comes before the elements of such a tensor, and gives its length.
///
/// # Errors
/// When it says that something else follows.
pub fn read_header(of: &TensorType, from: &mut impl Read) -> Result<usize, String> {
    let cut = |error: io::Error| format!("its header is cut off: {error}");
    let mut start = [0; 8];
    from.read_exact(&mut start).map_err(cut)?;
    if &start[..6] != MAGIC {
        return Err("it does not begin as files of NumPy do".to_owned());
    }
    let mut length = [0; 4];
    let bytes = match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(format!("version {version} of NumPy's format is unknown")),
    };
    from.read_exact(&mut length[..bytes]).map_err(cut)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > HEADER_BYTES_MAX {
        return Err(format!("its header has {length} bytes, and at most {HEADER_BYTES_MAX} are read"));
    }
    let mut header = vec![0; length];
    from.read_exact(&mut header).map_err(cut)?;
    let header = String::from_utf8(header).map_err(|_| "its header is no text".to_owned())?;
    check(
        of,
        &Header::parse(&header).ok_or_else(|| format!("its header is not understood: {}", header.trim()))?,
    )?;
    Ok(start.len() + bytes + length)
}

fn check(of: &TensorType, header: &Header) -> Result<(), String> {
    let wanted = descriptor(of.dtype)?;
    // One byte has no order; `=` is that of the machine that wrote it, which nobody knows.
    let same = header.descriptor == wanted
        || (of.dtype == DType::I8 && ["<i1", ">i1"].contains(&&*header.descriptor));
    if !same {
        return Err(format!("its elements are {:?}, and {} is {wanted:?}", header.descriptor, of.dtype));
    }
    if header.shape != of.shape[..] {
        return Err(format!("its shape is {:?}, and {of} is wanted", header.shape));
    }
    let is_line = header.shape.iter().filter(|extent| **extent != 1).count() <= 1;
    if header.fortran_order && !is_line {
        return Err("its elements lie column after column: save numpy.ascontiguousarray(x)".to_owned());
    }
    Ok(())
}

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    descriptor: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
    /// Of a dictionary as Python writes it, with these three keys in any order.
    fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
        let (mut descriptor, mut fortran_order, mut shape) = (None, None, None);
        while !rest.is_empty() {
            let (key, after) = quoted(rest)?;
            rest = after.trim_start().strip_prefix(':')?.trim_start();
            match key {
                "descr" => {
                    let (value, after) = quoted(rest)?;
                    (descriptor, rest) = (Some(value.to_owned()), after);
                }
                "fortran_order" => {
                    let (value, after) = flag(rest)?;
                    (fortran_order, rest) = (Some(value), after);
                }
                "shape" => {
                    let (value, after) = rest.strip_prefix('(')?.split_once(')')?;
                    (shape, rest) = (Some(extents(value)?), after);
                }
                _ => return None,
            }
            rest = rest.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
        Some(Self { descriptor: descriptor?, fortran_order: fortran_order?, shape: shape? })
    }
}

fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|quote| ['\'', '"'].contains(quote))?;
    text[1..].split_once(quote)
}

fn flag(text: &str) -> Option<(bool, &str)> {
    let flags = [("True", true), ("False", false)];
    flags.into_iter().find_map(|(word, value)| Some((value, text.strip_prefix(word)?)))
}

fn extents(text: &str) -> Option<Vec<usize>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    // Python 2 wrote long integers with an L.
    parts.map(|part| part.trim_end_matches('L').parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use claw_graph::Shape;

    fn of(dtype: DType, extents: &[usize]) -> TensorType {
        TensorType::new(dtype, Shape::new(extents.to_vec()).unwrap())
    }

    /// A file as NumPy writes it.
    fn file(version: u8, header: &str) -> Vec<u8> {
        let length = u32::try_from(header.len()).unwrap().to_le_bytes();
        let length = if version == 1 { &length[..2] } else { &length[..] };
        [MAGIC, &[version, 0], length, header.as_bytes()].concat()
    }

    #[test]
    fn what_is_written_is_read_again() {
        for extents in [&[][..], &[3], &[0], &[2, 3], &[1, 2, 3, 4, 5, 6, 7, 8]] {
            for dtype in [DType::F32, DType::F16, DType::I32, DType::I8] {
                let of = of(dtype, extents);
                let mut bytes = Vec::new();
                write_header(&of, &mut bytes).unwrap();
                assert_eq!(bytes.len() % ALIGNMENT, 0);
                assert_eq!(read_header(&of, &mut &bytes[..]), Ok(bytes.len()), "{of}");
            }
        }
    }

    #[test]
    fn a_header_is_as_numpy_writes_it() {
        let mut bytes = Vec::new();
        write_header(&of(DType::F32, &[3]), &mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[10..]).into_owned();
        assert!(text.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }  "), "{text}");
        assert!(text.ends_with(" \n"));
    }

    #[test]
    fn all_versions_and_ways_to_write_a_dictionary_are_read() {
        let of = of(DType::F32, &[2, 3]);
        for version in 1..=3 {
            let bytes = file(version, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n");
            assert_eq!(read_header(&of, &mut &bytes[..]), Ok(bytes.len()), "version {version}");
        }
        let other = file(2, r#"{"shape":(2L,3L),"fortran_order":False,"descr":"<f4"}"#);
        assert_eq!(read_header(&of, &mut &other[..]), Ok(other.len()));
    }

    #[test]
    fn one_axis_has_no_order() {
        let columns =
            |shape: &str| file(1, &format!("{{'descr': '<f4', 'fortran_order': True, 'shape': {shape}}}"));
        assert!(read_header(&of(DType::F32, &[1, 4]), &mut &columns("(1, 4)")[..]).is_ok());
        let why = read_header(&of(DType::F32, &[2, 4]), &mut &columns("(2, 4)")[..]).unwrap_err();
        assert!(why.contains("ascontiguousarray"), "{why}");
    }

    #[test]
    fn what_says_something_else_is_refused_with_the_reason() {
        let wanted = of(DType::F32, &[2, 3]);
        let header = |text: &str| file(1, text);
        for (bytes, why) in [
            (header("{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3)}"), "\">f4\""),
            (header("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3)}"), "\"<f8\""),
            (header("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2)}"), "[3, 2]"),
            (header("{'descr': '<f4', 'fortran_order': False}"), "not understood"),
            (header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,)}"), "not understood"),
            (header("{'descr': '<f4', 'fortran_order': Perhaps, 'shape': (2, 3)}"), "not understood"),
            (b"PK\x03\x04 a zip file".to_vec(), "does not begin"),
            (b"\x93NUM".to_vec(), "cut off"),
            (file(1, "{'descr': ")[..14].to_vec(), "cut off"),
            ([MAGIC, &[9, 0, 0, 0]].concat(), "version 9"),
            ([MAGIC, &[2, 0], &u32::MAX.to_le_bytes()].concat(), "4294967295 bytes"),
        ] {
            let said = read_header(&wanted, &mut &bytes[..]).unwrap_err();
            assert!(said.contains(why), "{said} does not say {why}");
        }
        assert!(descriptor(DType::Bf16).is_err());
    }
}
