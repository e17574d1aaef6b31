//! `weft check`: what is wrong, with manifests before anybody applies them, or
//! with a running mesh.
//!
//! `manifests` and `mesh` find, this says. Errors and warnings are one shape,
//! for people and as JSON, and the exit code is of the errors. Changes nothing.

mod manifests;
mod mesh;
mod uninstall;

use std::{fmt, fmt::Write as _, path::PathBuf, process::ExitCode};

use anyhow::bail;
use serde::Serialize;

use super::{
    asking::{self, Output, Whom},
    complain,
};
use crate::clock::Wall;

const EXIT_CODES: &str = "Exit codes: 0 nothing is wrong (warnings don't count), 1 something is, 2 it could not be looked at";

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// Manifests instead of a running mesh: a file, a directory of .yaml, .yml and .json, or - for standard input; repeated
    #[arg(short = 'f', long = "filename", value_name = "PATH", conflicts_with_all = asking::NAMES)]
    paths: Vec<PathBuf>,
    /// List the pods that keep working if the mesh is uninstalled now, and until when
    #[arg(long, conflicts_with = "paths")]
    before_uninstall: bool,
    #[command(flatten)]
    whom: Whom,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// It could not be looked at.
const UNKNOWN: u8 = 2;

/// # Errors
/// When nobody reads what is found.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let looked = match arguments.before_uninstall {
        true => uninstalled(arguments).map(|text| (text, 0)),
        false => found(arguments).and_then(|it| Ok((it.text(arguments.output)?, it.errors()))),
    };
    match looked {
        Ok((text, errors)) => {
            asking::print(&text)?;
            Ok(ExitCode::from(u8::from(errors > 0)))
        }
        Err(error) => {
            complain(&error);
            Ok(ExitCode::from(UNKNOWN))
        }
    }
}

fn found(arguments: &Arguments) -> anyhow::Result<Found> {
    if arguments.paths.is_empty() {
        let (report, in_cluster) = asking::block_on(arguments.whom.report())?;
        return Ok(mesh::check(&report, in_cluster));
    }
    let mut files = Vec::new();
    for path in &arguments.paths {
        manifests::read(path, &mut files)?;
    }
    if files.is_empty() {
        bail!("no .yaml, .yml or .json in what -f names");
    }
    Ok(manifests::check(&files))
}

fn uninstalled(arguments: &Arguments) -> anyhow::Result<String> {
    let (report, _) = asking::block_on(arguments.whom.report())?;
    let pods = uninstall::working(&report, Wall::System.seconds())?;
    match arguments.output {
        Output::Json => Ok(serde_json::to_string_pretty(&pods)? + "\n"),
        Output::Table => Ok(uninstall::table(&pods)),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Severity {
    Error,
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// What kind of trouble; docs/troubleshooting.md lists them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    /// A manifest that can't be taken.
    Manifest,
    /// Something that leads nowhere within the manifests.
    Reference,
    /// An object of the mesh that can't hold.
    Object,
    ReplicaSilent,
    SourceUnread,
    AuthorityEnds,
    RootEnds,
    PodSecurity,
    Unmeshed,
    UnmeshedUnknown,
    NotConnected,
    Rejected,
    Denied,
    Behind,
    Version,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
struct Finding {
    severity: Severity,
    what: What,
    /// FILE:LINE; empty where no file is known.
    place: String,
    object: String,
    field: String,
    message: String,
    remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.severity)?;
        if !self.place.is_empty() {
            write!(f, " {}", self.place)?;
        }
        if !self.object.is_empty() {
            write!(f, " {}", self.object)?;
        }
        if !self.place.is_empty() || !self.object.is_empty() {
            write!(f, ":")?;
        }
        if !self.field.is_empty() {
            write!(f, " {}:", self.field)?;
        }
        write!(f, " {}: {}", self.message, self.remedy)
    }
}

#[derive(Debug, Default)]
struct Found {
    /// Of what there are `looked_at`: objects, or proxies.
    of: &'static str,
    looked_at: usize,
    findings: Vec<Finding>,
}

impl Found {
    fn count(&self, severity: Severity) -> usize {
        let all = self.findings.iter();
        all.filter(|it| it.severity == severity).count()
    }

    fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn text(&self, output: Output) -> anyhow::Result<String> {
        let (errors, warnings) = (self.errors(), self.warnings());
        if let Output::Json = output {
            let all = serde_json::json!({
                "findings": self.findings, "errors": errors, "warnings": warnings,
            });
            return Ok(serde_json::to_string_pretty(&all)? + "\n");
        }
        let mut text = String::new();
        for finding in &self.findings {
            writeln!(text, "{finding}")?;
        }
        let (looked_at, of) = (self.looked_at, self.of);
        writeln!(
            text,
            "{looked_at} {of}, {errors} errors, {warnings} warnings"
        )?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Parsed {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn exit(arguments: &[&str]) -> String {
        let arguments = std::iter::once(&"check").chain(arguments);
        let arguments = Parsed::try_parse_from(arguments).unwrap().arguments;
        format!("{:?}", run(&arguments).unwrap())
    }

    #[test]
    fn the_exit_code_tells_good_from_wrong_from_unknown() {
        let code = |code: u8| format!("{:?}", ExitCode::from(code));
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let good = write("good.yaml", "# nothing\n");
        let broken = write("broken.yaml", "a: [1\n");
        assert_eq!(exit(&["-f", &good]), code(0));
        assert_eq!(exit(&["-f", &broken]), code(1));
        assert_eq!(exit(&["-f", &broken, "--output", "json"]), code(1));
        let nowhere = directory.path().join("nowhere").display().to_string();
        assert_eq!(exit(&["-f", &nowhere]), code(2));
        assert_eq!(exit(&["--status-socket", &nowhere]), code(2));
        assert_eq!(exit(&["--mesh", &nowhere, "--before-uninstall"]), code(2));
    }

    #[test]
    fn what_would_be_ambiguous_is_refused() {
        for arguments in [
            ["-f", "a.yaml", "--namespace", "weft-system"],
            ["-f", "a.yaml", "--mesh", "/tmp/mesh"],
            ["--context", "a", "--mesh", "/tmp/mesh"],
            ["--kubeconfig", "a", "--status-socket", "/tmp/socket"],
        ] {
            let all = std::iter::once("check").chain(arguments);
            assert!(Parsed::try_parse_from(all).is_err(), "{arguments:?}");
        }
    }
}
