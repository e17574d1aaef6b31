//! One file's text into documents, and one document into a value.
//!
//! Before `typed`. A line that begins with `---` ends a document wherever it
//! stands (YAML 1.2.2 §9.1.2 forbids it inside of all others), so that documents
//! are parsed one by one, and each error knows whose it is.
//!
//! Pure. JSON is YAML here.

use serde_json::Value;

use super::Refusal;

pub(crate) struct Raw<'a> {
    /// Of its first line, from 1.
    pub(crate) line: u64,
    pub(crate) text: &'a str,
}

/// The documents that hold more than comments.
pub(crate) fn split(text: &str) -> Vec<Raw<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 1, 0);
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        if is_separator(line) {
            documents.push((start_line, text.get(start..at).unwrap_or_default()));
            (start, start_line) = (at, number);
        }
        at += line.len();
    }
    documents.push((start_line, text.get(start..).unwrap_or_default()));
    documents
        .into_iter()
        .filter(|(_, text)| text.lines().any(says_something))
        .map(|(line, text)| Raw { line, text })
        .collect()
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

fn says_something(line: &str) -> bool {
    // `%` begins a directive, which says nothing by itself.
    let line = line
        .strip_prefix("---")
        .filter(|_| is_separator(line))
        .unwrap_or(line);
    let line = line.trim();
    !(line.is_empty() || line.starts_with(['#', '%']) || line == "...")
}

/// Errors name the line in the file.
pub(crate) fn parse(raw: &Raw<'_>) -> Result<Value, (u64, Refusal)> {
    // Booleans as Kubernetes' own YAML reads them (`yes`, `on`), so that a file
    // means here what it means there. Snippets would repeat a Secret's content.
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(raw.text, options).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        let message = format!("is no YAML: {error}");
        let remedy = "correct it; until then nothing of this file changes";
        (
            raw.line + line.saturating_sub(1),
            Refusal::new("", message, remedy),
        )
    })
}
