//! `weft ca`: asks for a rotation of the mesh's root, and says where one stands.
//!
//! It writes an annotation of the authority's Secret, so that whoever may change
//! that may ask; the control plane does the rest, and says there what it waits
//! for. The cluster is that of the kubeconfig, as for the subcommands that look.

use std::{collections::BTreeMap, io::Write, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    cli::kubeconfig,
    clock::Wall,
    cluster::{
        AUTHORITY,
        rotation::{ROTATE, ROTATION},
    },
};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    cluster: kubeconfig::Cluster,
    /// Namespace of the control plane
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        default_value = "weft-system"
    )]
    namespace: String,
    /// The authority's Secret
    #[arg(long, global = true, value_name = "NAME", default_value = AUTHORITY)]
    secret: String,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// A new root beside the old, then new certificates, then the old root goes
    Rotate,
    /// Where a rotation stands, and what it waits for
    Status,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let asked = async {
        let client = Box::pin(arguments.cluster.client()).await?;
        Box::pin(ask(arguments, client)).await
    };
    let said =
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), asked).await });
    let said = said.context("the API server did not answer within 30 s")??;
    writeln!(std::io::stdout(), "{said}").context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(arguments: &Arguments, client: Client) -> anyhow::Result<String> {
    let secrets: Api<Secret> = Api::namespaced(client, &arguments.namespace);
    let named = || format!("Secret {}/{}", arguments.namespace, arguments.secret);
    match arguments.what {
        What::Rotate => {
            let asked = json!({"metadata": {"annotations": {ROTATE: nonce()}}});
            let (patch, parameters) = (Patch::Merge(&asked), PatchParams::default());
            let patched = secrets.patch(&arguments.secret, &parameters, &patch).await;
            patched
                .map_err(|error| explained(error, "patch"))
                .with_context(named)?;
            Ok("asked for; `weft ca status` says where it stands".to_owned())
        }
        What::Status => {
            // The metadata alone: the key is nobody's to read here.
            let found = secrets.get_metadata_opt(&arguments.secret).await;
            let found = found.map_err(|error| explained(error, "get"));
            let Some(found) = found.with_context(named)? else {
                bail!("{} is not there", named());
            };
            Ok(standing(&found.metadata.annotations.unwrap_or_default()))
        }
    }
}

/// Whether one may is the API server's word; the remedy is ours.
fn explained(error: kube::Error, verb: &str) -> anyhow::Error {
    let is_refused = matches!(&error, kube::Error::Api(status) if status.code == 403);
    let error = anyhow::Error::new(error);
    match is_refused {
        true => error.context(format!(
            "you may not: ask for the verb {verb} on this Secret"
        )),
        false => error,
    }
}

/// What the control plane has left for people.
fn standing(annotations: &BTreeMap<String, String>) -> String {
    let said = annotations.get(ROTATION).map(String::as_str);
    let taken_up = annotations.get(crate::cluster::rotation::ROTATED);
    match annotations.get(ROTATE) {
        asked @ Some(_) if asked != taken_up => match said {
            Some(said) => format!("a rotation is asked for; before it: {said}"),
            None => "a rotation is asked for, and the control plane has not taken it up".to_owned(),
        },
        _ => said.unwrap_or("nothing moves").to_owned(),
    }
}

/// Another one at each call.
fn nonce() -> String {
    Wall::System.now().as_nanos().to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cluster::fake::Fake;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn line(words: &str) -> Arguments {
        let words = words.split_whitespace();
        Line::try_parse_from(words).unwrap().arguments
    }

    const SECRET: &str = "/api/v1/namespaces/mesh/secrets/own";

    #[tokio::test]
    async fn whoever_may_change_the_secret_asks_for_a_rotation_from_anywhere() {
        let fake = Fake::default();
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "own"}});
        fake.put(SECRET, secret);
        let told = async |words: &str| ask(&line(words), fake.cluster().client).await;
        let place = "--context shop --kubeconfig /a/file --namespace mesh --secret own";
        assert_eq!(
            told(&format!("ca status {place}")).await.unwrap(),
            "nothing moves"
        );
        told(&format!("ca {place} rotate")).await.unwrap();
        let standing = told(&format!("ca {place} status")).await.unwrap();
        assert!(standing.contains("has not taken it up"), "{standing}");
        fake.fail(SECRET, 403);
        for (what, verb) in [("rotate", "patch"), ("status", "get")] {
            let refused = told(&format!("ca {what} {place}")).await.unwrap_err();
            let refused = format!("{refused:#}");
            assert!(refused.contains("Secret mesh/own"), "{refused}");
            assert!(refused.contains(&format!("the verb {verb}")), "{refused}");
        }
    }

    #[test]
    fn a_rotation_that_waits_to_be_taken_up_says_so() {
        let rotated = crate::cluster::rotation::ROTATED;
        let standing = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
            standing(&pairs.collect())
        };
        assert_eq!(standing(&[]), "nothing moves");
        assert!(standing(&[(ROTATE, "1")]).contains("has not taken it up"));
        let before = [(ROTATE, "2"), (rotated, "1"), (ROTATION, "waits")];
        assert!(standing(&before).ends_with("before it: waits"));
        let taken = [(ROTATE, "2"), (rotated, "2"), (ROTATION, "waits")];
        assert_eq!(standing(&taken), "waits");
    }
}
