//! "Did you mean ...": the known name nearest to one that is not known.

/// Names listed when none is near.
const NAMES_LISTED_MAX: usize = 16;

/// What to write instead of `name`, where only `known` names may stand.
pub(crate) fn remedy(name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "remove it".to_owned(),
        None => {
            let listed: Vec<_> =
                known.iter().take(NAMES_LISTED_MAX).map(|name| format!("`{name}`")).collect();
            let more = if known.len() > NAMES_LISTED_MAX { ", ..." } else { "" };
            format!("remove it, or write one of {}{more}", listed.join(", "))
        }
    }
}

/// The name of `known` that `name` was most likely meant to be.
pub(crate) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let folded = fold(name);
    let (distance, near) = known
        .iter()
        .map(|candidate| (distance(&folded, &fold(candidate)), *candidate))
        .min_by_key(|(distance, _)| *distance)?;
    // A third of the name may be wrong; of a short one, one letter.
    (distance <= (folded.len() / 3).max(1) && distance < fold(near).len()).then_some(near)
}

/// Case and the separators of other naming styles do not count: `retry_on` is `retryOn`.
fn fold(name: &str) -> Vec<u8> {
    name.bytes().filter(|b| !matches!(b, b'_' | b'-')).map(|b| b.to_ascii_lowercase()).take(64).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours that lead from one to the other.
fn distance(from: &[u8], to: &[u8]) -> usize {
    // Every row has one place more than `to`, and `j` stays below its length.
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let replaced = last[j] + usize::from(a != b);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names() {
        let known = ["retryOn", "attempts", "perTryTimeout", "uri"];
        let check =
            |name: &str, expected: Option<&str>| assert_eq!(nearest(name, &known), expected, "{name}");
        check("retryon", Some("retryOn"));
        check("retry_on", Some("retryOn"));
        check("retyrOn", Some("retryOn"));
        check("atempts", Some("attempts"));
        check("url", Some("uri"));
        check("perTryTimeuot", Some("perTryTimeout"));
        check("weight", None);
        check("x", None);
        assert_eq!(nearest("x", &[]), None);
        assert_eq!(remedy("zzz", &["a", "b"]), "remove it, or write one of `a`, `b`");
    }
}
