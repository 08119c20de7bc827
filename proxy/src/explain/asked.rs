//! A question as the query of the console's page.

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::question::{Question, Way, address};

/// A question as the console is asked it: by the query of its page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) question: Question,
    /// Whether the answer is wanted as JSON.
    pub(crate) json: bool,
}

impl Asked {
    /// Reads a query.
    ///
    /// # Errors
    ///
    /// When something in it is not understood: what.
    pub(crate) fn parse(query: &str) -> Result<Asked, String> {
        let mut asked = Asked::default();
        let mut known = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
            if known.contains(&name) && name != "header" {
                return Err(format!("`{name}` comes twice"));
            }
            known.push(name);
            asked.take(name, value)?;
        }
        Ok(asked)
    }

    fn take(&mut self, name: &str, value: String) -> Result<(), String> {
        let question = &mut self.question;
        match name {
            "way" => question.way = Way::by_name(&value)?,
            "method" => question.method = Some(value),
            "url" => question.url = Some(value),
            "header" => question.headers.push(value),
            "http2" => question.http2 = is_so(&value)?,
            "tcp" => question.tcp = Some(address(&value)?),
            "sni" => question.sni = Some(value),
            "alpn" => question.alpn = Some(value),
            "certificate" => question.certificate = Some(value),
            "mtls" => question.mtls = is_so(&value)?,
            "destination" => question.destination = Some(address(&value)?),
            "listener" => question.listener = Some(value),
            "source" => question.source = Some(value),
            "draw" => question.draw = number(&value)?,
            "pick" => question.pick = Some(number(&value)?),
            "format" if value == "json" => self.json = true,
            "format" if value == "text" => self.json = false,
            "format" => return Err(format!("`{value}` is not a format; there are json and text")),
            _ => {
                return Err(format!(
                    "`{name}` is not one of way, method, url, header, http2, tcp, sni, alpn, certificate, mtls, \
                     destination, listener, source, draw, pick, format"
                ));
            }
        }
        Ok(())
    }

    /// The query that asks it.
    pub(crate) fn query(&self) -> String {
        let question = &self.question;
        let mut pairs = vec![("way", question.way.name().to_owned()), ("draw", question.draw.to_string())];
        let mut add = |name, value: Option<String>| pairs.extend(value.map(|value| (name, value)));
        add("method", question.method.clone());
        add("url", question.url.clone());
        add("tcp", question.tcp.map(|address| address.to_string()));
        add("sni", question.sni.clone());
        add("alpn", question.alpn.clone());
        add("certificate", question.certificate.clone());
        add("mtls", question.mtls.then(String::new));
        add("destination", question.destination.map(|address| address.to_string()));
        add("listener", question.listener.clone());
        add("source", question.source.clone());
        add("pick", question.pick.map(|pick| pick.to_string()));
        add("http2", question.http2.then(String::new));
        add("format", self.json.then(|| "json".to_owned()));
        pairs.extend(question.headers.iter().map(|header| ("header", header.clone())));
        let encoded = |(name, value): (&str, String)| {
            format!("{name}={}", utf8_percent_encode(&value, NON_ALPHANUMERIC))
        };
        pairs.into_iter().map(encoded).collect::<Vec<String>>().join("&")
    }
}

fn is_so(text: &str) -> Result<bool, String> {
    match text {
        "" | "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a whole number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_asks_all_that_is_asked() {
        let question = Question {
            way: Way::Inbound,
            method: Some("POST".to_owned()),
            url: Some("https://a:1/?b=c&d#".to_owned()),
            headers: vec!["x: y".to_owned(), "x: z".to_owned()],
            http2: true,
            tcp: address("10.0.0.1:2").ok(),
            sni: Some("a".to_owned()),
            alpn: Some("istio,h2".to_owned()),
            certificate: Some("-----BEGIN CERTIFICATE-----\n+/=\n".to_owned()),
            mtls: true,
            destination: address("10.0.0.1:3").ok(),
            listener: Some("l".to_owned()),
            source: Some("web.shop".to_owned()),
            draw: 4,
            pick: Some(5),
        };
        let asked = Asked { question, json: true };
        assert_eq!(Asked::parse(&asked.query()), Ok(asked));
    }

    #[test]
    fn a_query_says_whether_it_is_http2() {
        let check = |query: &str, expected: Result<bool, &str>| {
            let asked = Asked::parse(query).map(|asked| asked.question.http2);
            assert_eq!(asked, expected.map_err(str::to_owned), "{query}");
        };
        check("url=x", Ok(false));
        check("http2", Ok(true));
        check("http2=true", Ok(true));
        check("http2=false", Ok(false));
        check("http2=0", Err("`0` is neither true nor false"));
    }
}
