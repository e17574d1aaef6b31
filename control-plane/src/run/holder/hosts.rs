//! The hosts file of a pod: how names resolve without a name server.
//!
//! A name of a service means its cluster IPs; of a headless one, and of every
//! one in a pod without a sidecar (nothing there would translate a cluster
//! IP), its pods. Written in place, since the file is mounted over `/etc/hosts`
//! of running programs.

use std::{fmt::Write as _, fs::OpenOptions, io, net::IpAddr, os::unix::fs::FileExt, path::Path};

/// A service and what its names mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// "namespace/name".
    pub(crate) service: String,
    pub(crate) addresses: Vec<IpAddr>,
}

/// The file of pod "namespace/name".
pub(crate) fn render(pod: &str, own: &[IpAddr], services: &[Named]) -> String {
    let (own_namespace, pod_name) = pod.split_once('/').unwrap_or(("default", pod));
    let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
    for address in own {
        let _ = writeln!(text, "{address} {pod_name}");
    }
    for named in services {
        let (namespace, name) = named
            .service
            .split_once('/')
            .unwrap_or(("default", &named.service));
        let short = if namespace == own_namespace {
            format!(" {name}")
        } else {
            String::new()
        };
        for address in &named.addresses {
            let full = format!("{name}.{namespace}.svc");
            let _ = writeln!(
                text,
                "{address} {full}.cluster.local {full} {name}.{namespace}{short}"
            );
        }
    }
    text
}

/// One write, never shorter than what was there: who reads it meanwhile sees
/// whole lines.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or_default();
    let padded = format!("{text}{}", "\n".repeat(length.saturating_sub(text.len())));
    file.write_all_at(padded.as_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_those_of_the_pods_own_namespace() {
        let services = [
            Named {
                service: "shop/cart".to_owned(),
                addresses: vec!["10.96.0.2".parse().unwrap()],
            },
            Named {
                service: "pay/bank".to_owned(),
                addresses: vec!["fd00:10:96::3".parse().unwrap()],
            },
        ];
        let text = render("shop/front-0", &["10.244.0.5".parse().unwrap()], &services);
        assert_eq!(
            text,
            "127.0.0.1 localhost\n\
             ::1 localhost ip6-localhost ip6-loopback\n\
             10.244.0.5 front-0\n\
             10.96.0.2 cart.shop.svc.cluster.local cart.shop.svc cart.shop cart\n\
             fd00:10:96::3 bank.pay.svc.cluster.local bank.pay.svc bank.pay\n"
        );
    }

    #[test]
    fn a_shorter_file_leaves_nothing_of_the_longer_one_but_empty_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        write(&path, "1.2.3.4 a\n5.6.7.8 b\n").unwrap();
        write(&path, "1.2.3.4 a\n").unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            format!("1.2.3.4 a\n{}", "\n".repeat(10))
        );
    }
}
