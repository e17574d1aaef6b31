//! What launcher and holder say to each other: one JSON object per line.
//!
//! Both are the same binary, so this needs no versions; a holder of another
//! build is refused by name. A pod lives as long as its launcher's connection:
//! when that closes, for whatever reason, the holder removes the pod.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Write},
    path::PathBuf,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// A launcher's first words.
    Join(Box<Join>),
    /// From the program's process, which just left for a user namespace of its
    /// own: map its ids, as only a process above may.
    Map,
    /// The program runs.
    Started,
    /// The program was told to stop: send it nothing new.
    Draining,
    /// The program has ended: let its proxy finish and go.
    Ended,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Join {
    pub(crate) build: String,
    pub(crate) pod: String,
    pub(crate) service_account: Option<String>,
    /// Empty: the manifest's, else made from the name.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) mesh: bool,
    pub(crate) capture: Option<PathBuf>,
    /// `None`: whichever the mesh reads.
    pub(crate) manifests: Option<PathBuf>,
    pub(crate) control_plane: Option<String>,
    pub(crate) trust_domain: Option<String>,
    /// `None`: what the mesh's directory holds.
    pub(crate) trust_bundle: Option<PathBuf>,
    pub(crate) token_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Tell {
    /// Still starting; what it waits for.
    Waiting(String),
    Ready(Place),
    Refused(String),
    Mapped,
    /// Everything of the pod has ended.
    Gone,
}

/// Where the program goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) user_namespace: PathBuf,
    pub(crate) network_namespace: PathBuf,
    pub(crate) hosts: PathBuf,
    pub(crate) hostname: String,
    pub(crate) holder: PathBuf,
}

/// Of this binary: launcher and holder must be of one build.
pub(crate) fn build() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

pub(crate) fn line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("plain data with string keys");
    line.push(b'\n');
    line
}

pub(crate) fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    to.write_all(&line(message))
}

/// The next message; an error of kind `UnexpectedEof` when the other side has gone.
pub(crate) fn receive<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<T> {
    let mut text = String::new();
    if from.read_line(&mut text)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&text)?)
}
