//! The hub's state as an operator sees it. Reads, never changes.

use rustls_pki_types::CertificateDer;
use tokio::time::Instant;

use crate::{
    model::{Name, Pod},
    report::{
        Authority, Certificate, Disconnected, Explained, Problem, Proxy, Refusing, Reject, Report,
        Resource, Root,
    },
    roots::Fingerprint,
    serve::{
        explain::{self, Unexplained},
        hub::{State, origins},
        resource::Version,
        shelf::World,
        stream::Stream,
    },
};

impl State {
    pub(crate) fn report(&self, now_seconds: u64) -> Report {
        let mut proxies: Vec<Proxy> = self
            .streams
            .values()
            .filter(|it| !it.is_gone())
            .map(|it| self.proxy(it, now_seconds))
            .collect();
        proxies.sort_by(|a, b| a.pod.cmp(&b.pod));
        let certificates = self.certificates.iter().map(|(pod, it)| Certificate {
            pod: pod.to_string(),
            identity: it.identity.clone(),
            age_seconds: left(now_seconds, it.issued),
            expires_seconds: left(it.expires, now_seconds),
            root: it.root.to_string(),
        });
        Report {
            trust_domain: self.trust_domain.clone(),
            synced: self.synced,
            proxies,
            certificates: certificates.collect(),
            problems: self.problems(),
            replicas: Vec::new(),
            not_connected: self.not_connected(),
            authority: self.authority(now_seconds),
            unmeshed: self.unmeshed(),
            refusing: self.refusing(),
        }
    }

    /// A pod that has lost its proxy's stream a moment ago is one of them.
    fn not_connected(&self) -> Vec<Disconnected> {
        let is_connected = |pod: &&Pod| {
            let stream = self.pods.get(&pod.name);
            let stream = stream.and_then(|id| self.streams.get(id));
            stream.is_some_and(|it| !it.is_gone())
        };
        let pods = self.index.meshed_pods().filter(|it| !it.terminating);
        pods.filter(|pod| !is_connected(pod))
            .map(|pod| Disconnected {
                pod: pod.name.to_string(),
                ready: pod.ready,
            })
            .collect()
    }

    fn authority(&self, now_seconds: u64) -> Authority {
        let now = i64::try_from(now_seconds).unwrap_or(i64::MAX);
        let ends = |root: &CertificateDer<'_>| {
            let parsed = x509_parser::parse_x509_certificate(root).ok()?.1;
            Some(parsed.validity().not_after.timestamp())
        };
        let roots = self.roots.iter().filter_map(|root| {
            Some(Root {
                root: Fingerprint::of(root).to_string(),
                ends_seconds: ends(root)?.saturating_sub(now),
            })
        });
        Authority {
            ends_seconds: None,
            roots: roots.collect(),
        }
    }

    fn refusing(&self) -> Vec<Refusing> {
        let refusing = self.index.refusing_namespaces();
        let told = refusing.map(|(namespace, level)| Refusing {
            namespace: namespace.to_owned(),
            level: level.to_owned(),
        });
        told.collect()
    }

    /// # Errors
    /// When `from` or `host` is nothing that the index knows.
    pub(crate) fn explain(
        &self,
        from: &Name,
        host: &str,
        port: u16,
    ) -> Result<Explained, Unexplained> {
        let world = World {
            index: &self.index,
            roots: &self.roots,
            trust_domain: &self.trust_domain,
        };
        explain::explain(world, from, host, port)
    }

    fn proxy(&self, stream: &Stream, now_seconds: u64) -> Proxy {
        let now = Instant::now();
        let entries = || {
            let of = |name| self.shelf.find(name, &stream.view);
            stream
                .interests
                .iter()
                .filter_map(move |(name, interest)| Some((name, interest, of(name)?)))
        };
        let resources = entries().map(|(name, interest, entry)| Resource {
            name: name.to_string(),
            held: if interest.acknowledged == 0 {
                String::new()
            } else {
                hexadecimal(interest.acknowledged)
            },
            newest: hexadecimal(entry.version),
        });
        let rejects = stream.rejects.iter().map(|(name, it)| Reject {
            name: name.to_string(),
            version: hexadecimal(it.version),
            reason: it.reason.clone(),
            seconds_ago: now.saturating_duration_since(it.at).as_secs_f64(),
        });
        Proxy {
            pod: stream.caller.pod.to_string(),
            uid: stream.caller.uid.clone(),
            identity: stream.caller.identity.clone(),
            version: stream.caller.version.clone(),
            features: stream.caller.features.clone(),
            connected_seconds: now.saturating_duration_since(stream.since).as_secs_f64(),
            silent_seconds: now.saturating_duration_since(stream.heard).as_secs_f64(),
            resources: resources.collect(),
            rejects: rejects.collect(),
            denied: entries()
                .flat_map(|(_, _, entry)| entry.denied.iter().cloned())
                .collect(),
            certificate_expires_seconds: left(stream.caller.expires, now_seconds),
        }
    }

    fn problems(&self) -> Vec<Problem> {
        let files = self.file_problems.iter().map(|it| Problem {
            file: it.file.clone(),
            document: origins::counted(it.document),
            object: it
                .object
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            field: it.field.clone(),
            message: it.message.clone(),
            remedy: it.remedy.clone(),
        });
        let objects = self.index.problems().map(|it| {
            let (file, document) = self.place_of(&it.object);
            Problem {
                file,
                document,
                object: it.object.to_string(),
                field: it.field.clone(),
                message: it.message.clone(),
                remedy: it.remedy.clone(),
            }
        });
        let mut problems: Vec<Problem> = files
            .chain(objects)
            .chain(self.other_problems.values().cloned())
            .collect();
        problems.sort();
        problems
    }
}

/// Seconds until `then`; negative when it is over.
fn left(then: u64, now: u64) -> i64 {
    let signed = |it: u64| i64::try_from(it).unwrap_or(i64::MAX);
    signed(then).saturating_sub(signed(now))
}

fn hexadecimal(version: Version) -> String {
    format!("{version:016x}")
}
