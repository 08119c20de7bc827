//! Metrics in Prometheus' text format.

/// The sum of all series of a metric that carry these labels; `None` when there is none.
pub fn sum(page: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let wanted: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let values = page.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, labels) = series.split_once('{').unwrap_or((series, ""));
        let carries =
            |label: &String| labels.starts_with(label.as_str()) || labels.contains(&format!(",{label}"));
        (found == name && wanted.iter().all(carries)).then(|| value.parse::<f64>().expect("a number"))
    });
    values.reduce(|sum, value| sum + value)
}
