//! The grammar of cron schedules: five fields, or one of the names for the usual ones.
//!
//! Source: crontab(5), and what CronJobs add (`@every 1h30m`). Says only whether a schedule can be read; when it comes
//! due is the business of who starts the jobs.

/// A field of a schedule: its name, its range, and names for its values, the first of which stands for `first`.
struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const FIELDS: [Field; 5] = [
    Field { name: "minute", first: 0, last: 59, names: &[] },
    Field { name: "hour", first: 0, last: 23, names: &[] },
    Field { name: "day of month", first: 1, last: 31, names: &[] },
    Field { name: "month", first: 1, last: 12, names: MONTHS },
    Field { name: "day of week", first: 0, last: 6, names: DAYS },
];

const DESCRIPTORS: [&str; 7] =
    ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Units of `@every`, longest first where one begins another.
const UNITS: [&str; 7] = ["ns", "us", "µs", "ms", "s", "m", "h"];

/// Whether a schedule can be read.
///
/// # Errors
/// What is wrong with it.
pub(super) fn schedule(text: &str) -> Result<(), String> {
    if let Some(duration) = text.strip_prefix("@every ") {
        return if is_duration(duration) {
            Ok(())
        } else {
            Err(format!("failed to parse duration {text}: use hours, minutes and seconds such as 1h30m"))
        };
    }
    if text.starts_with('@') {
        return if DESCRIPTORS.contains(&text) {
            Ok(())
        } else {
            Err(format!("unrecognized descriptor: {text}"))
        };
    }
    let parts: Vec<&str> = text.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
    }
    FIELDS.iter().zip(parts).try_for_each(|(field, part)| {
        part.split(',')
            .try_for_each(|range| field.range(range).map_err(|why| format!("{}: {why}", field.name)))
    })
}

impl Field {
    /// `*`, `?`, `5`, `1-5`, each with an optional step `/2`.
    fn range(&self, text: &str) -> Result<(), String> {
        let (range, step) = text.split_once('/').map_or((text, None), |(range, step)| (range, Some(step)));
        if let Some(step) = step
            && number(step)? == 0
        {
            return Err(format!("step of range should be a positive number: {text}"));
        }
        if matches!(range, "*" | "?") {
            return Ok(());
        }
        let (start, end) = match range.split_once('-') {
            Some((start, end)) => (self.value(start)?, self.value(end)?),
            None => (self.value(range)?, self.value(range)?),
        };
        if start > end {
            return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
        }
        Ok(())
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let named = self.names.iter().position(|name| text.eq_ignore_ascii_case(name));
        let value = match named.and_then(|index| u32::try_from(index).ok()) {
            Some(index) => self.first + index,
            None => number(text)?,
        };
        if value < self.first {
            return Err(format!("{value} is below the minimum ({})", self.first));
        }
        if value > self.last {
            return Err(format!("{value} is above the maximum ({})", self.last));
        }
        Ok(value)
    }
}

fn number(text: &str) -> Result<u32, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().ok_or_else(|| format!("failed to parse number: {text:?}"))
}

/// Go's form of a duration: `1h30m`, `90s`, `1.5h`.
fn is_duration(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = &rest[..rest.len() - digits.len()];
        let unit = UNITS.iter().find(|unit| digits.starts_with(**unit));
        let (true, Some(unit)) = (number.parse::<f64>().is_ok(), unit) else { return false };
        rest = &digits[unit.len()..];
    }
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::schedule;

    #[test]
    fn usual_schedules_are_read() {
        for sound in [
            "* * * * *",
            "*/5 0 1,15 * 1-5",
            "0 22 * * MON-FRI",
            "0 0 1 jan ?",
            "@daily",
            "@every 1h30m",
            "@every 90s",
            "5-59/10 * * * *",
        ] {
            assert_eq!(schedule(sound), Ok(()), "{sound}");
        }
    }

    #[test]
    fn broken_schedules_say_where() {
        for (broken, why) in [
            ("", "expected exactly 5 fields, found 0"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "minute: 60 is above the maximum (59)"),
            ("* * 0 * *", "day of month: 0 is below the minimum (1)"),
            ("* * * * 7", "day of week: 7 is above the maximum (6)"),
            ("5-1 * * * *", "minute: beginning of range (5) beyond end of range (1)"),
            ("*/0 * * * *", "minute: step of range should be a positive number"),
            ("x * * * *", "minute: failed to parse number: \"x\""),
            ("* * * foo *", "month: failed to parse number"),
            ("@often", "unrecognized descriptor: @often"),
            ("@every x", "failed to parse duration @every x"),
            ("@every 5", "failed to parse duration"),
        ] {
            let found = schedule(broken).unwrap_err();
            assert!(found.starts_with(why), "{broken}: {found}");
        }
    }
}
