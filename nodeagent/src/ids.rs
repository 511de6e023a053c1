//! Hexadecimal names: of contents, and random ones.

use crate::Error;

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 128 random bits.
pub(crate) fn random() -> Result<String, Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::System {
        doing: "reading random bytes",
        source: std::io::Error::other(error.to_string()),
    })?;
    Ok(hex(&bytes))
}
