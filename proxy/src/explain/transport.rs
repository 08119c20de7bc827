//! What TLS towards an upstream asks of it, in words.

use config::{ServerCertificate, StringMatch, UpstreamTls};

/// Names that are told of a list.
const NAMES_TOLD_MAX: usize = 3;

/// What is spoken: the mode, the name that is asked for, what is shown, and who is believed.
pub(super) fn spoken(tls: &UpstreamTls) -> String {
    let mut text = format!("{:?} TLS", tls.mode);
    match (&*tls.sni, tls.by_request.sni) {
        ("", true) => text.push_str(" to the server that the request names"),
        ("", false) => {}
        (sni, _) => text.push_str(&format!(" to the server {sni}")),
    }
    if let Some(certificate) = &tls.certificate {
        text.push_str(&format!(", with the certificate {certificate}"));
    }
    match &tls.server {
        ServerCertificate::Any => text.push_str("; anybody is believed"),
        ServerCertificate::Refused(why) => text.push_str(&format!("; {why}")),
        ServerCertificate::Verified(trust) => {
            text.push_str(&format!("; believed by {}", trust.roots));
            if tls.by_request.name {
                text.push_str(" with the name of the request");
            }
            text.push_str(&named(&trust.subject_alt_names));
        }
    }
    text
}

/// The names of which a certificate has one.
pub(super) fn named(names: &[StringMatch]) -> String {
    let told = names.iter().take(NAMES_TOLD_MAX).map(|name| match name {
        StringMatch::Exact(name) => name.to_string(),
        StringMatch::Prefix(prefix) => format!("{prefix}*"),
        StringMatch::SafeRegex(regex) => format!("{regex} as a regular expression"),
    });
    let told: Vec<String> = told.collect();
    match names.len().saturating_sub(told.len()) {
        _ if told.is_empty() => String::new(),
        0 => format!(" as {}", told.join(" or ")),
        more => format!(" as {} or {more} more", told.join(", ")),
    }
}
