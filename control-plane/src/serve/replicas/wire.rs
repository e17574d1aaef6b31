//! A summary as it travels between replicas, and back.
//!
//! Part of `replicas`. Roots are named by their place in one list. What is not
//! understood makes the whole refused: half a view is none.

use std::collections::BTreeMap;

use weft_proto::v1;

use crate::{
    model::{Key, Kind, Name},
    roots::Fingerprint,
    serve::{
        hub::{Followers, Following, Known, Summary, Watching},
        tls::Signed,
    },
};

/// Roots that one mesh can have at a time, many times over.
const MOST_ROOTS: usize = 256;
/// What has a status to answer.
const ANSWERED: [Kind; 4] = [
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::BackendPolicy,
    Kind::AccessPolicy,
];

/// Gives each root its place.
#[derive(Default)]
struct Places(BTreeMap<Fingerprint, u32>);

impl Places {
    fn of(&mut self, root: Fingerprint) -> u32 {
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        *self.0.entry(root).or_insert(next)
    }

    fn leaf(&mut self, signed: Signed) -> v1::Leaf {
        v1::Leaf {
            issued: signed.issued,
            root: self.of(signed.root),
        }
    }

    fn list(self) -> Vec<bytes::Bytes> {
        let mut all: Vec<_> = self.0.into_iter().collect();
        all.sort_by_key(|(_, place)| *place);
        let bytes = |(root, _): &(Fingerprint, u32)| bytes::Bytes::copy_from_slice(root.as_bytes());
        all.iter().map(bytes).collect()
    }
}

pub(super) fn write(summary: &Summary) -> v1::Summary {
    let mut places = Places::default();
    let bundle = summary.bundle.iter().map(|it| places.of(*it)).collect();
    let signer = summary.signer.map(|it| places.of(it));
    let pods = summary.pods.iter();
    let pods = pods.map(|(name, it)| write_pod(name, it, &mut places));
    let pods = pods.collect();
    let services = summary.services.iter().map(|(name, it)| {
        let (by, why) = it.rejected.clone().unzip();
        v1::ServiceFollowers {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            all: number(it.all),
            applied: number(it.applied),
            rejected_by: by.map(|it| it.to_string()).unwrap_or_default(),
            rejected_why: why.unwrap_or_default(),
        }
    });
    let generations = summary.generations.iter();
    let generations = generations.map(|(key, generation)| v1::Generation {
        kind: key.kind.as_str().to_owned(),
        namespace: key.name.namespace.clone(),
        name: key.name.name.clone(),
        generation: *generation,
    });
    v1::Summary {
        bundle,
        signer,
        pods,
        services: services.collect(),
        generations: generations.collect(),
        roots: places.list(),
    }
}

fn write_pod(name: &Name, known: &Known, places: &mut Places) -> v1::KnownPod {
    let stream = known.stream.as_ref();
    let workload = stream.map(|it| &it.workload);
    v1::KnownPod {
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        uid: known.uid.clone(),
        shown: stream.map(|it| places.leaf(it.leaf)),
        holds_bundle: stream.is_some_and(|it| it.holds_newest),
        applies_workload: workload == Some(&Following::Applied),
        rejects_workload: match workload {
            // Empty would read as none.
            Some(Following::Rejected(why)) if why.is_empty() => "it does not say why".to_owned(),
            Some(Following::Rejected(why)) => why.clone(),
            _ => String::new(),
        },
        issued: known.issued.map(|it| places.leaf(it)),
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// # Errors
/// What can't be understood.
pub(super) fn read(summary: v1::Summary) -> Result<Summary, &'static str> {
    if summary.roots.len() > MOST_ROOTS {
        return Err("too many roots");
    }
    let roots: Option<Vec<_>> = summary
        .roots
        .iter()
        .map(|it| Fingerprint::from_bytes(it))
        .collect();
    let roots = roots.ok_or("a fingerprint is not one")?;
    let root = |place: u32| {
        let place = usize::try_from(place).map_err(|_| "no such root")?;
        roots.get(place).copied().ok_or("no such root")
    };
    let bundle = summary.bundle.into_iter().map(root);
    let bundle = bundle.collect::<Result<_, _>>()?;
    let signer = summary.signer.map(root).transpose()?;
    let leaf = |leaf: v1::Leaf| {
        let root = root(leaf.root)?;
        Ok::<_, &'static str>(Signed {
            issued: leaf.issued,
            root,
        })
    };
    let mut pods = BTreeMap::new();
    for it in summary.pods {
        let (shown, issued) = (
            it.shown.map(leaf).transpose()?,
            it.issued.map(leaf).transpose()?,
        );
        let workload = match (it.applies_workload, it.rejects_workload) {
            (true, _) => Following::Applied,
            (false, why) if why.is_empty() => Following::Pending,
            (false, why) => Following::Rejected(why),
        };
        let known = Known {
            uid: it.uid,
            stream: shown.map(|leaf| Watching {
                leaf,
                holds_newest: it.holds_bundle,
                workload,
            }),
            issued,
        };
        pods.insert(Name::new(&it.namespace, &it.name), known);
    }
    let services = summary.services.into_iter().map(|it| {
        let by = it.rejected_by.split_once('/');
        let by = by.map(|(namespace, name)| Name::new(namespace, name));
        let followers = Followers {
            all: usize::try_from(it.all).unwrap_or(usize::MAX),
            applied: usize::try_from(it.applied).unwrap_or(usize::MAX),
            rejected: by.map(|pod| (pod, it.rejected_why)),
        };
        (Name::new(&it.namespace, &it.name), followers)
    });
    // Kinds of a newer release are none of ours to answer.
    let generations = summary.generations.into_iter().filter_map(|it| {
        let kind = ANSWERED.into_iter().find(|kind| kind.as_str() == it.kind)?;
        let name = Name::new(&it.namespace, &it.name);
        Some((Key { kind, name }, it.generation))
    });
    Ok(Summary {
        bundle,
        signer,
        pods,
        services: services.collect(),
        generations: generations.collect(),
    })
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;

    use super::*;

    fn root(name: &str) -> Fingerprint {
        Fingerprint::of(&CertificateDer::from(name.as_bytes().to_vec()))
    }

    fn signed(issued: u64, name: &str) -> Signed {
        let root = root(name);
        Signed { issued, root }
    }

    fn summary() -> Summary {
        let watching = |workload| Known {
            uid: "uid".to_owned(),
            stream: Some(Watching {
                leaf: signed(5, "old"),
                holds_newest: true,
                workload,
            }),
            issued: Some(signed(7, "new")),
        };
        let rejected = Following::Rejected("no such field".to_owned());
        let issued = Known {
            issued: Some(signed(9, "older")),
            ..Known::default()
        };
        let followers = Followers {
            all: 3,
            applied: 1,
            rejected: Some((Name::new("shop", "cart-0"), "no such filter".to_owned())),
        };
        let key = Key {
            kind: Kind::GrpcRoute,
            name: Name::new("shop", "cart"),
        };
        Summary {
            bundle: vec![root("old"), root("new")],
            signer: Some(root("new")),
            pods: [
                (Name::new("shop", "a"), watching(Following::Applied)),
                (Name::new("shop", "b"), watching(Following::Pending)),
                (Name::new("shop", "c"), watching(rejected)),
                (Name::new("shop", "d"), issued),
            ]
            .into(),
            services: [
                (Name::new("shop", "cart"), followers),
                (Name::new("shop", "web"), Followers::default()),
            ]
            .into(),
            generations: [(key, 7)].into(),
        }
    }

    #[test]
    fn a_summary_arrives_as_it_was_told() {
        assert_eq!(read(write(&summary())), Ok(summary()));
        let nothing = Summary::default();
        assert_eq!(read(write(&nothing)), Ok(nothing));
    }

    #[test]
    fn a_root_that_is_not_in_the_list_or_none_refuses_the_whole() {
        let mut missing = write(&summary());
        missing.roots.pop();
        assert_eq!(read(missing), Err("no such root"));
        let mut short = write(&summary());
        short.roots[0] = bytes::Bytes::from_static(b"short");
        assert_eq!(read(short), Err("a fingerprint is not one"));
        let mut many = write(&summary());
        many.roots = vec![bytes::Bytes::from(vec![0; 32]); MOST_ROOTS + 1];
        assert_eq!(read(many), Err("too many roots"));
    }

    #[test]
    fn a_reject_without_a_reason_is_still_one_and_kinds_of_a_newer_release_are_passed_over() {
        let mut told = summary();
        let name = Name::new("shop", "c");
        let stream = told.pods.get_mut(&name).unwrap().stream.as_mut().unwrap();
        stream.workload = Following::Rejected(String::new());
        let mut wire = write(&told);
        wire.generations[0].kind = "TokenPolicy".to_owned();
        let read = read(wire).unwrap();
        let workload = &read.pods[&name].stream.as_ref().unwrap().workload;
        assert!(matches!(workload, Following::Rejected(_)), "{workload:?}");
        assert!(read.generations.is_empty());
    }
}
