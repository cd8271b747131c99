//! Prometheus text, as far as tests ask about it.

/// One scrape.
#[derive(Debug)]
pub struct Metrics(Vec<Series>);

/// One line of a scrape.
#[derive(Debug)]
pub struct Series {
    /// `av_flow_state`, ...
    pub name: String,
    /// In the order written.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
}

impl Metrics {
    /// Parses a scrape; panics at a line that is none.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(Series::parse).collect())
    }

    /// All lines.
    pub fn series(&self) -> &[Series] {
        &self.0
    }

    /// The sum of all series of that name that carry these labels; `None` where there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.0.iter().filter(|series| series.name == name && series.has(labels)).peekable();
        found.peek()?;
        Some(found.map(|series| series.value).sum())
    }
}

impl Series {
    fn parse(line: &str) -> Self {
        Self::try_parse(line).unwrap_or_else(|| panic!("not a Prometheus line: {line}"))
    }

    fn try_parse(line: &str) -> Option<Self> {
        let (key, value) = line.rsplit_once(' ')?;
        let (name, labels) = match key.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (key, ""),
        };
        let labels = labels.split("\",").filter(|label| !label.is_empty()).map(|label| {
            let (key, value) = label.split_once("=\"")?;
            Some((key.to_owned(), value.trim_end_matches('"').to_owned()))
        });
        Some(Self {
            name: name.to_owned(),
            labels: labels.collect::<Option<_>>()?,
            value: value.parse().ok()?,
        })
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether all of `labels` are on this series.
    pub fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(key, value)| self.label(key) == Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_one_name_are_summed_by_label() {
        let metrics = Metrics::parse(
            "# HELP a b\na{flow=\"x\",kind=\"video\"} 2\na{flow=\"x\",kind=\"audio\"} 3\nb 1\n",
        );
        assert_eq!(metrics.sum("a", &[("flow", "x")]), Some(5.0));
        assert_eq!(metrics.sum("a", &[("kind", "audio")]), Some(3.0));
        assert_eq!(metrics.sum("a", &[("kind", "text")]), None);
        assert_eq!(metrics.sum("b", &[]), Some(1.0));
    }
}
