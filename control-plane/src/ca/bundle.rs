//! The roots that the mesh trusts: our own, and those in a directory of PEM
//! files beside it, read again when they change.
//!
//! `serve` hands every new set to the proxies and checks callers with it. A
//! file that can't be read leaves the last good set in force and is reported.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::{sync::watch, time};

use crate::ca::Error;

/// Every root, ours first; never empty. In a stable order, without duplicates.
pub(crate) type Roots = Arc<[CertificateDer<'static>]>;

/// Comparing a few small files is cheap, and unlike a notification it also sees
/// what a mounted volume exchanges by renaming directories.
const INTERVAL: Duration = Duration::from_secs(1);

/// Reads the directory (or single file) once.
pub(crate) fn read(own: &CertificateDer<'static>, extra: &Path) -> Result<Roots, Error> {
    let mut roots = Vec::new();
    for file in files(extra)? {
        let failed = |source| Error::File { path: file.display().to_string(), source };
        let text = fs::read(&file).map_err(failed)?;
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|error| broken(&file, &error.to_string()))?;
            is_root(&certificate).map_err(|message| broken(&file, message))?;
            roots.push(certificate);
        }
        if roots.len() == before {
            return Err(broken(&file, "it holds no certificate"));
        }
    }
    roots.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
    roots.dedup();
    roots.retain(|root| root != own);
    roots.insert(0, own.clone());
    Ok(roots.into())
}

/// Publishes every change until nobody listens. `report` is told of each new
/// error once, and `None` when it is over.
pub(crate) async fn follow(
    own: CertificateDer<'static>,
    extra: PathBuf,
    roots: watch::Sender<Roots>,
    report: impl Fn(Option<String>),
) {
    let mut last = None;
    loop {
        tokio::select! {
            () = time::sleep(INTERVAL) => {}
            () = roots.closed() => return,
        }
        let error = match read(&own, &extra) {
            Ok(fresh) => {
                roots.send_if_modified(|now| {
                    let changed = *now != fresh;
                    *now = fresh;
                    changed
                });
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if error != last {
            report(error.clone());
            last = error;
        }
    }
}

fn files(extra: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::File { path: extra.display().to_string(), source };
    match fs::read_dir(extra) {
        Ok(entries) => {
            let mut files = Vec::new();
            for entry in entries {
                let path = entry.map_err(failed)?.path();
                if path.extension().is_some_and(|it| it == "pem" || it == "crt") && path.is_file() {
                    files.push(path);
                }
            }
            files.sort();
            Ok(files)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(vec![extra.to_owned()]),
        Err(error) => Err(failed(error)),
    }
}

fn is_root(certificate: &CertificateDer<'_>) -> Result<(), &'static str> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| "a certificate can't be read")?;
    if !parsed.is_ca() {
        return Err("a certificate in it is not one of an authority");
    }
    webpki::anchor_from_trusted_cert(certificate).map(drop).map_err(|_| "a certificate in it can't be a trust anchor")
}

fn broken(file: &Path, message: &str) -> Error {
    Error::State {
        path: file.display().to_string(),
        message: message.to_owned(),
        remedy: "give one or more CA certificates in PEM; the last good bundle stays in force",
    }
}
