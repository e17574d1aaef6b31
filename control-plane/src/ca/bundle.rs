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
        let failed = |source| Error::File {
            path: file.display().to_string(),
            source,
        };
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
    let failed = |source| Error::File {
        path: extra.display().to_string(),
        source,
    };
    match fs::read_dir(extra) {
        Ok(entries) => {
            let mut files = Vec::new();
            for entry in entries {
                let path = entry.map_err(failed)?.path();
                if path
                    .extension()
                    .is_some_and(|it| it == "pem" || it == "crt")
                    && path.is_file()
                {
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
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| "a certificate can't be read")?;
    if !parsed.is_ca() {
        return Err("a certificate in it is not one of an authority");
    }
    webpki::anchor_from_trusted_cert(certificate)
        .map(drop)
        .map_err(|_| "a certificate in it can't be a trust anchor")
}

fn broken(file: &Path, message: &str) -> Error {
    Error::State {
        path: file.display().to_string(),
        message: message.to_owned(),
        remedy: "give one or more CA certificates in PEM; the last good bundle stays in force",
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    fn root(is_root: bool) -> rcgen::Certificate {
        let mut wanted = CertificateParams::default();
        wanted.is_ca = if is_root {
            IsCa::Ca(BasicConstraints::Unconstrained)
        } else {
            IsCa::NoCa
        };
        wanted.self_signed(&KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn ours_is_first_and_none_is_there_twice() {
        let directory = tempfile::tempdir().unwrap();
        let (own, other) = (root(true), root(true));
        assert_eq!(
            read(own.der(), &directory.path().join("missing"))
                .unwrap()
                .len(),
            1
        );
        fs::write(
            directory.path().join("all.pem"),
            other.pem() + &own.pem() + &other.pem(),
        )
        .unwrap();
        fs::write(directory.path().join("README"), "not read").unwrap();
        let roots = read(own.der(), directory.path()).unwrap();
        assert_eq!(*roots, [own.der().clone(), other.der().clone()]);
        assert_eq!(
            read(own.der(), &directory.path().join("all.pem")).unwrap(),
            roots
        );
    }

    #[test]
    fn what_is_no_root_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let own = root(true);
        for text in [String::new(), "nonsense".to_owned(), root(false).pem()] {
            fs::write(directory.path().join("a.pem"), text).unwrap();
            let error = read(own.der(), directory.path()).unwrap_err().to_string();
            assert!(
                error.contains("a.pem") && error.contains("last good"),
                "{error}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_followed_and_a_broken_one_is_told_and_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (own, other) = (root(true), root(true));
        let (sender, mut roots) = watch::channel(read(own.der(), directory.path()).unwrap());
        let (told, mut reports) = tokio::sync::mpsc::unbounded_channel();
        let report = move |error: Option<String>| told.send(error).unwrap();
        let follow = follow(
            own.der().clone(),
            directory.path().to_owned(),
            sender,
            report,
        );
        let _task = crate::runtime::spawn(follow);
        fs::write(directory.path().join("a.pem"), other.pem()).unwrap();
        roots.changed().await.unwrap();
        assert_eq!(roots.borrow_and_update().len(), 2);
        fs::write(directory.path().join("a.pem"), "nonsense").unwrap();
        assert!(reports.recv().await.unwrap().is_some());
        assert!(!roots.has_changed().unwrap());
        fs::remove_file(directory.path().join("a.pem")).unwrap();
        assert_eq!(reports.recv().await.unwrap(), None);
        assert_eq!(roots.borrow().len(), 1);
    }
}
