//! `weft ca`: asks for a rotation of the mesh's root, and says where one stands.
//!
//! It writes an annotation of the authority's Secret, so that whoever may change
//! that may ask; the control plane does the rest, and says there what it waits
//! for.

use std::{collections::BTreeMap, io::Write, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
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
    /// Namespace of the control plane
    #[arg(long, global = true, default_value = "weft-system")]
    namespace: String,
    /// The authority's Secret
    #[arg(long, global = true, default_value = AUTHORITY)]
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
    let asked = Box::pin(ask(arguments));
    let said =
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), asked).await });
    let said = said.context("the API server did not answer within 30 s")??;
    writeln!(std::io::stdout(), "{said}").context("standard output")?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(arguments: &Arguments) -> anyhow::Result<String> {
    let client = Client::try_default()
        .await
        .context("finding the cluster (KUBECONFIG)")?;
    let secrets: Api<Secret> = Api::namespaced(client, &arguments.namespace);
    let named = || format!("Secret {}/{}", arguments.namespace, arguments.secret);
    match arguments.what {
        What::Rotate => {
            let asked = json!({"metadata": {"annotations": {ROTATE: nonce()}}});
            let (patch, parameters) = (Patch::Merge(&asked), PatchParams::default());
            let patched = secrets.patch(&arguments.secret, &parameters, &patch).await;
            patched.with_context(named)?;
            Ok("asked for; `weft ca status` says where it stands".to_owned())
        }
        What::Status => {
            // The metadata alone: the key is nobody's to read here.
            let found = secrets.get_metadata_opt(&arguments.secret).await;
            let Some(found) = found.with_context(named)? else {
                bail!("{} is not there", named());
            };
            Ok(standing(&found.metadata.annotations.unwrap_or_default()))
        }
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
    use super::*;

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
