//! Turns the texts of knobs into values, and gathers what is wrong with them.
//!
//! `config` asks for each knob once; an error never stops the reading, so that
//! an operator sees all of them together.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use super::Knob;

/// All that is wrong, one line each.
#[derive(Debug)]
pub struct Errors(Vec<String>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("configuration: ")?;
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for Errors {}

pub(super) struct Reader<'a> {
    source: &'a dyn Fn(&str) -> Option<String>,
    errors: Vec<String>,
    /// Names asked for: a test compares them with the declared ones.
    pub(super) read: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            source,
            errors: Vec::new(),
            read: Vec::new(),
        }
    }

    pub(super) fn finish<T>(self, value: T) -> Result<T, Errors> {
        if self.errors.is_empty() {
            Ok(value)
        } else {
            Err(Errors(self.errors))
        }
    }

    pub(super) fn text(&mut self, knob: &Knob) -> String {
        self.value(knob, |text| Some(text.to_owned()))
            .unwrap_or_default()
    }

    pub(super) fn path(&mut self, knob: &Knob) -> PathBuf {
        self.value(knob, |text| Some(PathBuf::from(text)))
            .unwrap_or_default()
    }

    pub(super) fn address(&mut self, knob: &Knob) -> SocketAddr {
        self.value(knob, |text| text.parse().ok())
            .unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    pub(super) fn parsed<T: FromStr + Default>(&mut self, knob: &Knob) -> T {
        self.value(knob, |text| text.parse().ok())
            .unwrap_or_default()
    }

    /// Within `least..=most`.
    pub(super) fn number<T>(&mut self, knob: &Knob, least: T, most: T) -> T
    where
        T: FromStr + PartialOrd + Copy + fmt::Display,
    {
        let parsed = self.value(knob, |text| text.parse().ok());
        let number = parsed.unwrap_or(least);
        if number < least || number > most {
            self.errors.push(format!(
                "{}: {number} is not from {least} to {most}",
                knob.name
            ));
        }
        number
    }

    pub(super) fn duration(&mut self, knob: &Knob) -> Duration {
        self.value(knob, duration).unwrap_or_default()
    }

    /// `none` switches it off.
    pub(super) fn duration_or_none(&mut self, knob: &Knob) -> Option<Duration> {
        let parse = |text: &str| {
            if text == "none" {
                Some(None)
            } else {
                duration(text).map(Some)
            }
        };
        self.value(knob, parse).unwrap_or_default()
    }

    pub(super) fn number_or_none<T: FromStr>(&mut self, knob: &Knob) -> Option<T> {
        let parse = |text: &str| {
            if text == "none" {
                Some(None)
            } else {
                text.parse().ok().map(Some)
            }
        };
        self.value(knob, parse).unwrap_or_default()
    }

    pub(super) fn one_of<T: Copy>(&mut self, knob: &Knob, values: &[(&str, T)]) -> Option<T> {
        let named = |text: &str| {
            values
                .iter()
                .find(|(name, _)| *name == text)
                .map(|(_, value)| *value)
        };
        self.value(knob, named)
    }

    /// `None` where it is missing or wrong, which is noted.
    fn value<T>(&mut self, knob: &Knob, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.read.push(knob.name);
        let given = (self.source)(knob.name)
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty());
        let Some(text) = given.as_deref().or(knob.default) else {
            self.errors
                .push(format!("{} is not set: {}", knob.name, knob.help));
            return None;
        };
        let value = parse(text);
        if value.is_none() {
            self.errors.push(format!(
                "{}: {text:?} is not {}",
                knob.name,
                knob.kind.as_str()
            ));
        }
        value
    }
}

/// A whole number and its unit: `5ms`, `30s`, `10m`, `24h`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "us" => Some(Duration::from_micros(number)),
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_its_unit() {
        assert_eq!(duration("5ms"), Some(Duration::from_millis(5)));
        assert_eq!(duration("250us"), Some(Duration::from_micros(250)));
        assert_eq!(duration("24h"), Some(Duration::from_secs(86_400)));
        for wrong in [
            "",
            "5",
            "ms",
            "-5s",
            "5 s",
            "1.5s",
            "5d",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
