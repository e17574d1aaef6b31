//! Text that a request is held against: a value, or a regular expression.
//!
//! Data, compiled when it is decoded, never on the path. The syntax is RE2's
//! and matching takes linear time (the `regex` crate): no expression can stall
//! a request. The first match of a thread makes room for its automaton;
//! afterwards nothing is allocated. The control plane holds expressions to the
//! same bounds, so that what it accepts is never rejected here.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

/// Longest text of an expression.
const TEXT_BYTES: usize = 1024;

/// Bytes of the compiled program, and of the automaton that a thread builds
/// of it while it matches.
const PROGRAM_BYTES: usize = 256 * 1024;
const AUTOMATON_BYTES: usize = 256 * 1024;

/// Groups in groups.
const NESTING: u32 = 64;

/// Holds for the whole of a value.
#[derive(Clone)]
pub(crate) struct Expression {
    text: Box<str>,
    compiled: Regex,
}

impl Expression {
    /// # Errors
    /// What is wrong with `text`, in one line.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        if text.len() > TEXT_BYTES {
            return Err(format!("longer than {TEXT_BYTES} bytes"));
        }
        // Alone first: "a)(b" must not escape from the group around it.
        compile(text)?;
        Ok(Self {
            text: text.into(),
            compiled: compile(&format!("\\A(?:{text})\\z"))?,
        })
    }

    pub(crate) fn is_match(&self, value: &[u8]) -> bool {
        self.compiled.is_match(value)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

fn compile(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text)
        .size_limit(PROGRAM_BYTES)
        .nest_limit(NESTING)
        .dfa_size_limit(AUTOMATON_BYTES)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => format!("compiles to over {PROGRAM_BYTES} bytes"),
            // The last line says what; those before it draw where.
            error => error
                .to_string()
                .lines()
                .last()
                .unwrap_or_default()
                .to_owned(),
        })
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.text)
    }
}

/// One value, or all that an expression holds for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Text {
    Exact(Box<str>),
    Expression(Expression),
}

impl Text {
    pub(crate) fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == value,
            Self::Expression(expression) => expression.is_match(value),
        }
    }

    /// Of the text as it is written.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Exact(text) => text.len(),
            Self::Expression(expression) => expression.as_str().len(),
        }
    }

    pub(crate) fn is_expression(&self) -> bool {
        matches!(self, Self::Expression(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_holds_for_the_whole_value() {
        let expression = Expression::new("a|b+").unwrap();
        for (value, expected) in [("a", true), ("bbb", true), ("ab", false), ("a\n", false)] {
            assert_eq!(expression.is_match(value.as_bytes()), expected, "{value:?}");
        }
        assert!(Expression::new("").unwrap().is_match(b""));
        assert!(!Expression::new("").unwrap().is_match(b"x"));
    }

    #[test]
    fn what_can_not_be_an_expression_is_said_in_one_line() {
        assert_eq!(
            Expression::new("a)(b").unwrap_err(),
            "error: unopened group"
        );
        assert!(Expression::new("[").unwrap_err().contains("unclosed"));
        assert!(
            Expression::new("(?=x)")
                .unwrap_err()
                .contains("look-around")
        );
        assert!(
            Expression::new(r"(a)\1")
                .unwrap_err()
                .contains("backreferences")
        );
    }

    #[test]
    fn an_expression_is_bounded_in_length_and_in_size() {
        assert!(Expression::new(&"a".repeat(TEXT_BYTES)).is_ok());
        let long = Expression::new(&"a".repeat(TEXT_BYTES + 1)).unwrap_err();
        assert_eq!(long, "longer than 1024 bytes");
        let large = Expression::new("((a{99}){99}){99}").unwrap_err();
        assert_eq!(large, "compiles to over 262144 bytes");
    }

    #[test]
    fn what_stalls_a_backtracking_engine_takes_linear_time() {
        let expression = Expression::new("(a*)*b").unwrap();
        assert!(!expression.is_match(&[b'a'; 100_000]));
    }
}
