//! A request for tests of decisions.

use super::Request;

#[derive(Clone, Default, Debug)]
pub(crate) struct Sample {
    pub(crate) method: String,
    pub(crate) path: Vec<u8>,
    pub(crate) query: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
}

impl Sample {
    pub(crate) fn get(path: &str) -> Self {
        Self {
            method: "GET".into(),
            path: path.into(),
            query: None,
            headers: Vec::new(),
        }
    }

    pub(crate) fn with_method(mut self, method: &str) -> Self {
        self.method = method.into();
        self
    }

    pub(crate) fn with_query(mut self, query: &str) -> Self {
        self.query = Some(query.into());
        self
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

impl Request for Sample {
    fn method(&self) -> &str {
        &self.method
    }

    fn path(&self) -> &[u8] {
        &self.path
    }

    fn query(&self) -> Option<&[u8]> {
        self.query.as_deref().map(str::as_bytes)
    }

    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let named = self
            .headers
            .iter()
            .filter(move |(own, _)| own.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_bytes())
    }
}
