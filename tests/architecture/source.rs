//! Sources as text: which files are production code, and what of them is code.
//!
//! Comments and literals are masked with spaces and test modules cut, so that
//! the other tests can search without a parser. Lines keep their numbers.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Of the repository.
pub(crate) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the tests' crate is a folder of the repository")
        .to_owned()
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A production file.
pub(crate) struct File {
    /// From the root.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Without comments, literals and test modules.
    pub(crate) code: String,
}

impl File {
    fn new(path: String, text: String) -> Self {
        let code = without_tests(&mask(&text));
        Self { path, text, code }
    }

    /// Lines before its test module, generated code aside.
    pub(crate) fn length(&self) -> usize {
        let at = self
            .text
            .find("#[cfg(test)]\nmod ")
            .unwrap_or(self.text.len());
        self.text.get(..at).unwrap_or_default().lines().count()
    }

    pub(crate) fn header(&self) -> String {
        self.text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Numbered lines of code in which `found` holds, as `path:line`.
    pub(crate) fn places(&self, found: impl Fn(&str) -> bool) -> Vec<String> {
        let lines = self.code.lines().enumerate();
        lines
            .filter(|(_, line)| found(line))
            .map(|(at, _)| format!("{}:{}", self.path, at + 1))
            .collect()
    }
}

/// Every production file below `folder`, from the root.
pub(crate) fn production(folder: &str) -> Vec<File> {
    let sources = tracked()
        .into_iter()
        .filter(|path| path.starts_with(folder) && path.ends_with(".rs"));
    let mut files: Vec<_> = sources
        .filter(|path| !is_test(path))
        .map(|path| File::new(path.clone(), read(&path)))
        .collect();
    let for_tests: Vec<_> = files.iter().flat_map(test_modules).collect();
    files.retain(|file| !for_tests.contains(&file.path));
    files.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(
        !files.is_empty(),
        "{folder} holds no source: has it moved? Then mend layers.toml"
    );
    files
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs")
        || path
            .split('/')
            .rev()
            .skip(1)
            .any(|folder| folder == "tests" || folder == "gen")
}

/// Files that `file` declares for tests alone: `#[cfg(test)] mod name;`.
fn test_modules(file: &File) -> Vec<String> {
    let folder = file
        .path
        .trim_end_matches(".rs")
        .trim_end_matches("/lib")
        .trim_end_matches("/main");
    let items = file.text.split("#[cfg(test)]").skip(1);
    let declared = items.filter_map(|item| {
        let (declaration, _) = item.split_once(';')?;
        let name = declaration.trim().rsplit("mod ").next()?;
        let is_name = name
            .chars()
            .all(|letter| letter.is_alphanumeric() || letter == '_');
        is_name.then(|| format!("{folder}/{name}.rs"))
    });
    declared.collect()
}

/// Files that git knows or would add: not what is built.
pub(crate) fn tracked() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let listed = listed.expect("git runs; these tests need a checkout of the repository");
    let paths = String::from_utf8_lossy(&listed.stdout);
    paths
        .lines()
        .filter(|path| root().join(path).is_file())
        .map(str::to_owned)
        .collect()
}

/// Comments and the insides of literals become spaces.
pub(crate) fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let hidden = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if next == '"' {
            string(rest)
        } else if let Some(length) = raw_string(rest, masked.chars().next_back()) {
            length
        } else if next == '\'' {
            character(rest)
        } else {
            0
        };
        let (hide, keep) = rest.split_at(hidden);
        masked.extend(
            hide.chars()
                .map(|letter| if letter == '\n' { '\n' } else { ' ' }),
        );
        rest = keep;
        if hidden == 0 {
            masked.push(next);
            rest = rest.strip_prefix(next).unwrap_or_default();
        }
    }
    masked
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of a literal such as `r#"…"#` or `br"…"`.
fn raw_string(text: &str, before: Option<char>) -> Option<usize> {
    if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_') {
        return None;
    }
    let rest = text.strip_prefix('r').or_else(|| text.strip_prefix("br"))?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let body = rest.get(hashes..)?.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = body.find(&end)? + end.len();
    Some(text.len() - body.len() + length)
}

/// Length of a character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    match letters.next() {
        Some((_, '\\')) => letters
            .skip(1)
            .find(|(_, letter)| *letter == '\'')
            .map_or(0, |(at, _)| at + 1),
        Some(_) => match letters.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

/// Cuts every item under `#[cfg(test)]`.
fn without_tests(masked: &str) -> String {
    let mut code = String::with_capacity(masked.len());
    let mut rest = masked;
    while let Some(at) = rest.find("#[cfg(test)]") {
        let (before, item) = rest.split_at(at);
        code.push_str(before);
        let end = item_end(item);
        let (cut, after) = item.split_at(end);
        code.extend(cut.chars().filter(|letter| *letter == '\n'));
        rest = after;
    }
    code.push_str(rest);
    code
}

/// Where the item that begins `text` ends: at its `;` or at its last brace.
fn item_end(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[test]
fn comments_literals_and_tests_are_not_code() {
    let text = r##"
use a; // crate::b
/* crate::c */ let x = "crate::d \" crate::e"; let y = r#"crate::f " "#;
fn g<'a>(h: &'a str, c: char) { c == '"' || c == '\'' || c == 'i'; }
#[cfg(test)]
mod tests { use crate::j; fn k() { if true {} } }
use crate::l;
"##;
    let code = without_tests(&mask(text));
    assert!(
        code.contains("use a;") && code.contains("use crate::l;") && code.contains("fn g<'a>"),
        "{code}"
    );
    for hidden in ["::b", "::c", "::d", "::e", "::f", "::j"] {
        assert!(!code.contains(hidden), "{hidden} in {code}");
    }
    assert_eq!(code.lines().count(), text.lines().count());
}
