//! The protocol of a service port, as Istio takes it from `appProtocol` or from the port's name.

use crate::kubernetes::ServicePort;

/// What a port speaks, as far as routing distinguishes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2: `http2`, `grpc`, `grpc-web`.
    Http2,
    /// TLS that the proxy passes on: also HTTPS.
    Tls,
    /// TCP as far as the proxy is concerned: also databases.
    Tcp,
    /// TCP of MongoDB, which shares a port with no other protocol.
    Mongo,
    /// TCP of MySQL, which shares a port with no other protocol.
    MySql,
    /// UDP; the proxy has nothing to do with it.
    Udp,
    /// Not told; found out from the first bytes of each connection.
    Detected,
}

/// Ports on which the server speaks first, so that waiting for the client's first bytes would wait forever.
const SERVER_SPEAKS_FIRST: [u16; 4] = [25, 53, 3306, 27017];

impl Protocol {
    /// The protocol of `port`. `appProtocol` wins over the name; of the name, what stands before the first `-` counts.
    pub(super) fn of(port: &ServicePort) -> Protocol {
        if port.protocol.as_deref() == Some("UDP") {
            return Protocol::Udp;
        }
        let told = match port.app_protocol.as_deref() {
            Some("kubernetes.io/h2c") => return Protocol::Http2,
            Some("kubernetes.io/ws") => return Protocol::Http1,
            Some("kubernetes.io/wss") => return Protocol::Tls,
            Some(protocol) => protocol,
            None => port.name.as_deref().unwrap_or_default(),
        };
        match Protocol::by_name(told) {
            Protocol::Detected if SERVER_SPEAKS_FIRST.contains(&port.port) => Protocol::Tcp,
            protocol => protocol,
        }
    }

    /// The protocol that an object of Istio's names, such as `HTTP` or `TLS`; nothing or another word leaves it to be
    /// detected.
    pub(super) fn told(name: &str) -> Protocol {
        match name.to_ascii_lowercase().as_str() {
            "http" | "http_proxy" => Protocol::Http1,
            "http2" | "grpc" | "grpc-web" => Protocol::Http2,
            "tls" | "https" => Protocol::Tls,
            "tcp" | "redis" | "hbone" => Protocol::Tcp,
            "mongo" => Protocol::Mongo,
            "mysql" => Protocol::MySql,
            "udp" => Protocol::Udp,
            _ => Protocol::Detected,
        }
    }

    fn by_name(name: &str) -> Protocol {
        let name = name.to_ascii_lowercase();
        if name.starts_with("grpc-web") {
            return Protocol::Http2;
        }
        match name.split('-').next().unwrap_or_default() {
            "http" | "http_proxy" => Protocol::Http1,
            "http2" | "grpc" => Protocol::Http2,
            "tls" | "https" => Protocol::Tls,
            "tcp" | "redis" | "hbone" => Protocol::Tcp,
            "mongo" => Protocol::Mongo,
            "mysql" => Protocol::MySql,
            "udp" => Protocol::Udp,
            _ => Protocol::Detected,
        }
    }

    /// Whether it is known to be HTTP.
    pub(super) fn is_http(self) -> bool {
        matches!(self, Protocol::Http1 | Protocol::Http2)
    }

    /// Whether HTTP routing applies: it is HTTP, or may turn out to be.
    pub(super) fn may_be_http(self) -> bool {
        self.is_http() || self == Protocol::Detected
    }
}

/// Whether HTTP routing applies to `port` of a service, or may.
pub fn may_be_http(port: &ServicePort) -> bool {
    Protocol::of(port).may_be_http()
}

/// Whether what comes to the port of a service is found out from its first bytes.
pub(crate) fn is_detected(port: &ServicePort) -> bool {
    Protocol::of(port) == Protocol::Detected
}

/// Whether objects of Istio's may name a protocol so; nothing is one that is found out.
pub(crate) fn is_protocol(name: &str) -> bool {
    name.is_empty() || Protocol::told(name) != Protocol::Detected
}

/// The same of a port whose protocol an object of Istio's names.
pub fn may_be_told_http(name: &str) -> bool {
    Protocol::told(name).may_be_http()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_name_and_app_protocol() {
        let check = |name: &str, app: Option<&str>, transport: &str, number, expected| {
            let port = ServicePort {
                name: Some(name.into()),
                port: number,
                protocol: Some(transport.into()),
                app_protocol: app.map(Box::from),
                target_port: None,
            };
            assert_eq!(Protocol::of(&port), expected, "{name} {app:?} {transport} {number}");
        };
        check("http", None, "TCP", 80, Protocol::Http1);
        check("HTTP-api", None, "TCP", 80, Protocol::Http1);
        check("http2", None, "TCP", 80, Protocol::Http2);
        check("grpc-web-x", None, "TCP", 80, Protocol::Http2);
        check("grpc-otlp", None, "TCP", 4317, Protocol::Http2);
        check("https", None, "TCP", 443, Protocol::Tls);
        check("tcp-ledger", None, "TCP", 3307, Protocol::Tcp);
        check("mongo-rs0", None, "TCP", 27017, Protocol::Mongo);
        check("db", Some("mysql"), "TCP", 3307, Protocol::MySql);
        check("metrics", None, "TCP", 9100, Protocol::Detected);
        check("httpx", None, "TCP", 80, Protocol::Detected);
        check("", None, "TCP", 3306, Protocol::Tcp);
        check("http", None, "TCP", 3306, Protocol::Http1);
        check("http", None, "UDP", 80, Protocol::Udp);
        check("http", Some("tcp"), "TCP", 80, Protocol::Tcp);
        check("web", Some("kubernetes.io/h2c"), "TCP", 80, Protocol::Http2);
        check("web", Some("kubernetes.io/ws"), "TCP", 80, Protocol::Http1);
        check("web", Some("kubernetes.io/wss"), "TCP", 443, Protocol::Tls);
        check("web", Some("example.com/own"), "TCP", 443, Protocol::Detected);
    }
}
