//! Durations as people type them: `30s`, `5m`, `1h30m`, `0`.

use std::time::Duration;

/// For clap's `value_parser`.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a duration: write it as 30s, 5m or 1h30m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u32 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(86_400),
            _ => return Err(wrong()),
        };
        total = total.saturating_add(unit.saturating_mul(number));
        rest = &rest[letters..];
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up_and_nonsense_is_refused() {
        assert_eq!(parse("1h30m5s").unwrap().as_secs(), 5405);
        assert_eq!(parse("250ms").unwrap().as_millis(), 250);
        assert_eq!(parse("0").unwrap(), Duration::ZERO);
        for text in ["", "5", "s", "5x", "-5s", "1h30", "99999999999s"] {
            assert!(parse(text).unwrap_err().contains("is not a duration"), "{text}");
        }
    }
}
