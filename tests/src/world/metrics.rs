//! A proxy's metrics at one moment, to be asked by name and labels.
//!
//! Under `world::pod`, which fetches them from the pod's metrics port.

use std::ops::Deref;

/// The Prometheus text of one scrape.
#[derive(Clone, Debug)]
pub struct Metrics(pub(super) String);

impl Deref for Metrics {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Metrics {
    /// Sum of the series of this name that have all these labels.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.0
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                let (found, rest) = series.split_once('{').unwrap_or((series, ""));
                let has =
                    |(label, value): &(&str, &str)| rest.contains(&format!("{label}=\"{value}\""));
                (found == name && labels.iter().all(has)).then(|| value.parse::<f64>().ok())?
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_with_all_the_labels_are_added_up() {
        let text = "# TYPE a counter\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4\na{x=\"2\"} 5\nab{x=\"1\"} 9\n";
        let metrics = Metrics(text.to_owned());
        assert_eq!(metrics.sum("a", &[("x", "1")]), 7.0);
        assert_eq!(metrics.sum("a", &[]), 12.0);
        assert_eq!(metrics.sum("b", &[]), 0.0);
    }
}
