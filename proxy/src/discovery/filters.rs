//! What a route changes of the requests that it selects, and of their answers.
//!
//! Data, compiled by `control` from a rule's filters and then its backend's,
//! in their order: what several filters do to one field is one edit, so that a
//! message is walked once. `route` applies a path's edit and `http` the rest.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::{Backend, Cors};

/// Of one backend of a rule.
#[derive(Default, Debug)]
pub(crate) struct Filters {
    pub(crate) request: RequestEdits,
    pub(crate) response: Arc<FieldEdits>,
    pub(crate) mirrors: Vec<Mirror>,
    pub(crate) cors: Option<Cors>,
    /// Answered with it; no backend is asked.
    pub(crate) redirect: Option<Redirect>,
}

impl Filters {
    /// What becomes of the path, be it forwarded or told.
    pub(crate) fn path(&self) -> Option<&PathEdit> {
        let redirected = self.redirect.as_ref().and_then(|to| to.path.as_ref());
        redirected.or(self.request.path.as_ref())
    }
}

/// On the way to a backend.
#[derive(Default, Debug)]
pub(crate) struct RequestEdits {
    pub(crate) fields: FieldEdits,
    /// `HTTPURLRewriteFilter.hostname`.
    pub(crate) host: Option<HeaderValue>,
    pub(crate) path: Option<PathEdit>,
}

/// `HTTPHeaderFilter`, one edit for each name.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct FieldEdits(Vec<FieldEdit>);

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FieldEdit {
    pub(crate) name: HeaderName,
    /// The message's own values stay, before ours.
    pub(crate) keeps: bool,
    pub(crate) values: Vec<HeaderValue>,
}

impl FieldEdits {
    /// Instead of what is there.
    pub(crate) fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        self.replace(name, vec![value]);
    }

    /// Behind what is there, as a line of its own: Set-Cookie can't be joined
    /// (RFC 9110 §5.3), and to a list it is the same.
    pub(crate) fn add(&mut self, name: &HeaderName, value: HeaderValue) {
        match self.0.iter_mut().find(|edit| edit.name == *name) {
            Some(edit) => edit.values.push(value),
            None => self.0.push(FieldEdit {
                name: name.clone(),
                keeps: true,
                values: vec![value],
            }),
        }
    }

    pub(crate) fn remove(&mut self, name: &HeaderName) {
        self.replace(name, Vec::new());
    }

    /// Both, `earlier` before these.
    pub(crate) fn after(&self, earlier: &Self) -> Self {
        let mut all = earlier.clone();
        for edit in &self.0 {
            if !edit.keeps {
                all.remove(&edit.name);
            }
            for value in &edit.values {
                all.add(&edit.name, value.clone());
            }
        }
        all
    }

    fn replace(&mut self, name: &HeaderName, values: Vec<HeaderValue>) {
        self.0.retain(|edit| edit.name != *name);
        self.0.push(FieldEdit {
            name: name.clone(),
            keeps: false,
            values,
        });
    }

    /// Does a line of this name go?
    pub(crate) fn drops(&self, name: &[u8]) -> bool {
        self.0
            .iter()
            .any(|edit| !edit.keeps && name.eq_ignore_ascii_case(edit.name.as_str().as_bytes()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &FieldEdit> {
        self.0.iter()
    }

    /// The lines that come at the end.
    pub(crate) fn added(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0
            .iter()
            .flat_map(|edit| edit.values.iter().map(|value| (&edit.name, value)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `HTTPPathModifier`; both in canonical form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum PathEdit {
    Full(Box<str>),
    /// Instead of the prefix that matched; without its trailing slash.
    Prefix(Box<str>),
}

impl PathEdit {
    /// Of a canonical path, of which the first `matched` bytes are the prefix
    /// that a rule matched.
    pub(crate) fn apply(&self, path: &[u8], matched: usize) -> Box<[u8]> {
        let (start, rest) = match self {
            Self::Full(whole) => (whole, &[][..]),
            Self::Prefix(prefix) => (prefix, path.get(matched..).unwrap_or_default()),
        };
        let edited = [start.as_bytes(), rest].concat();
        if edited.is_empty() {
            b"/"[..].into()
        } else {
            edited.into()
        }
    }
}

/// `HTTPRequestMirrorFilter`.
#[derive(Debug)]
pub(crate) struct Mirror {
    /// Or why it can't be used: it is skipped and counted.
    pub(crate) backend: Result<Arc<Backend>, Box<str>>,
    /// `numerator` of `denominator` requests; never more, and never of none.
    pub(crate) numerator: u32,
    pub(crate) denominator: u32,
}

/// `HTTPRequestRedirectFilter`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Redirect {
    pub(crate) scheme: &'static str,
    /// `None`: the one that was asked for.
    pub(crate) hostname: Option<Box<str>>,
    /// With its colon; empty where `Location` must not name it.
    pub(crate) port: Box<str>,
    pub(crate) path: Option<PathEdit>,
    pub(crate) status: u16,
    /// For a request that names no host.
    pub(crate) service_host: Box<str>,
}

impl Redirect {
    /// The port of `Location` (HTTPRequestRedirectFilter.port): the one given,
    /// else the well-known one of a given scheme, else the parent's; not named
    /// where it is the well-known one. A mesh carries what its callers sent in
    /// plaintext, so the request's own scheme is http.
    pub(crate) fn port(scheme: Option<&str>, given: Option<u16>, parent: u16) -> Box<str> {
        let well_known = if scheme == Some("https") { 443 } else { 80 };
        let port = match (given, scheme) {
            (Some(given), _) => given,
            (None, Some(_)) => well_known,
            (None, None) => parent,
        };
        if port == well_known {
            Box::default()
        } else {
            format!(":{port}").into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &'static str) -> HeaderValue {
        HeaderValue::from_static(text)
    }

    #[test]
    fn what_several_filters_do_to_a_field_is_one_edit() {
        let (a, b) = (HeaderName::from_static("a"), HeaderName::from_static("b"));
        let mut edits = FieldEdits::default();
        edits.add(&a, value("1"));
        edits.set(&a, value("2"));
        edits.add(&a, value("3"));
        edits.add(&b, value("4"));
        edits.remove(&b);
        edits.add(&b, value("5"));
        let all: Vec<_> = edits.iter().cloned().collect();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].keeps, all[0].values.len()), (false, 2));
        assert_eq!(
            (all[1].keeps, &all[1].values[..]),
            (false, &[value("5")][..])
        );
        assert!(edits.drops(b"A") && !edits.drops(b"ab"));
        let added: Vec<_> = edits.added().map(|(_, value)| value.clone()).collect();
        assert_eq!(added, ["2", "3", "5"].map(value));
        let mut later = FieldEdits::default();
        later.set(&a, value("6"));
        later.add(&b, value("7"));
        let all = later.after(&edits);
        let added: Vec<_> = all.added().map(|(_, value)| value.clone()).collect();
        assert_eq!(added, ["5", "7", "6"].map(value));
    }

    /// The table of HTTPPathModifier.replacePrefixMatch. Trailing slashes of
    /// both sides are gone by then: "/foo/" is "/foo", "/" is "".
    #[test]
    fn a_prefix_is_replaced_by_segments() {
        for (path, matched, replacement, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo", "", "/xyz", "/xyz/foo"),
            ("/", "", "/xyz", "/xyz/"),
            ("/", "", "", "/"),
        ] {
            let edit = PathEdit::Prefix(replacement.into());
            let edited = edit.apply(path.as_bytes(), matched.len());
            assert_eq!(
                &*edited,
                expected.as_bytes(),
                "{path} {matched} {replacement}"
            );
        }
        let edit = PathEdit::Full("/xyz".into());
        assert_eq!(&*edit.apply(b"/foo/bar", 0), b"/xyz");
    }

    /// HTTPRequestRedirectFilter.port, rule by rule.
    #[test]
    fn a_redirect_names_a_port_only_where_it_must() {
        for (scheme, given, parent, expected) in [
            // Redirect scheme not empty: the well-known port, which is not named.
            (Some("http"), None, 8080, ""),
            (Some("https"), None, 8080, ""),
            // Redirect scheme empty: the parent's port.
            (None, None, 8080, ":8080"),
            (None, None, 80, ""),
            // Given.
            (None, Some(8083), 80, ":8083"),
            (None, Some(80), 8080, ""),
            (None, Some(443), 80, ":443"),
            (Some("https"), Some(443), 80, ""),
            (Some("https"), Some(8443), 80, ":8443"),
            (Some("https"), Some(80), 80, ":80"),
            (Some("http"), Some(443), 80, ":443"),
        ] {
            let port = Redirect::port(scheme, given, parent);
            assert_eq!(&*port, expected, "{scheme:?} {given:?} {parent}");
        }
    }
}
