//! Listeners that the command line asks for.

use super::mesh::{Mesh, service, service_in};
use crate::mesh::{AccessLogEncoding, Normalization};
use crate::resource::format::LogFormat;
use crate::resource::{EscapedSlashes, HttpConnectionManager, Listener, PathNormalization, RouteSource};

fn manager(listener: &Listener) -> &HttpConnectionManager {
    listener.chains().next().unwrap().http().unwrap()
}

#[test]
fn a_service_may_be_named_in_every_form() {
    let check = |target: &str, expected: &str| {
        let mut mesh = Mesh::new(&(service("web") + &service_in("far", "ops", "http")));
        mesh.listeners.clear();
        mesh.listen_service(target, 80);
        let output = mesh.compile();
        assert_eq!(output.codes(), Vec::<&str>::new(), "{target}");
        let [host] = &output.routes(expected).virtual_hosts[..] else { panic!("{target}") };
        assert_eq!((&*host.name, &host.domains[..]), (expected, &["*".into()][..]), "{target}");
        assert_eq!(&*host.routes[0].operation, &format!("{expected}/*"));
    };
    let web = "web.shop.svc.cluster.local:80";
    for target in ["web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local", "Web.Shop.", "WEB"] {
        check(target, web);
    }
    check("far.ops", "far.ops.svc.cluster.local:80");
}

#[test]
fn a_service_that_cannot_be_served_answers_404_and_is_found() {
    let check = |target: &str, port, name: &str, code: &str| {
        let alias = "kind: Service\nmetadata: {name: alias, namespace: shop}\n\
            spec: {type: ExternalName, externalName: web.shop.svc.cluster.local, ports: [{name: http, port: 80}]}\n";
        let mut mesh = Mesh::new(&(service("web") + &service_in("db", "shop", "tcp") + alias));
        mesh.listeners.clear();
        mesh.listen_service(target, port);
        let output = mesh.compile();
        assert_eq!(output.codes(), [code], "{target}");
        let [host] = &output.routes(name).virtual_hosts[..] else { panic!("{target}") };
        assert!(host.routes.is_empty(), "{target}");
        assert_eq!(output.resources.listeners.len(), 1);
    };
    check("gone", 80, "gone.shop.svc.cluster.local:80", "unknown-listen-service");
    check("gone.ops", 80, "gone.ops.svc.cluster.local:80", "unknown-listen-service");
    check("gone.ops.svc", 80, "gone.ops.svc.cluster.local:80", "unknown-listen-service");
    check("gone.example.com", 80, "gone.example.com:80", "unknown-listen-service");
    check("web", 81, "web.shop.svc.cluster.local:81", "unknown-listen-port");
    check("db", 80, "db.shop.svc.cluster.local:80", "unknown-listen-port");
    check("alias", 80, "alias.shop.svc.cluster.local:80", "unknown-listen-service");
}

#[test]
fn listeners_are_named_once_and_share_routes() {
    let mut mesh = Mesh::new(&service("web"));
    mesh.listen_outbound(80);
    mesh.listen_service("web", 80);
    mesh.listeners[2].address = "[::1]:8080".parse().unwrap();
    let output = mesh.compile();
    let listeners = output.compiled.update.listeners.iter();
    let names: Vec<(&str, RouteSource)> =
        listeners.map(|it| (&*it.name, manager(it).routes.clone())).collect();
    let rds = |name: &str| RouteSource::Rds(name.into());
    assert_eq!(
        names,
        [
            ("127.0.0.1_0", rds("80")),
            ("127.0.0.1_0_2", rds("80")),
            ("[::1]_8080", rds("web.shop.svc.cluster.local:80")),
        ]
    );
    assert_eq!(output.resources.routes.len(), 2);
}

#[test]
fn connection_managers() {
    let mesh = || Mesh::new("");
    let http = |mesh: Mesh| manager(&mesh.compile().compiled.update.listeners[0]).clone();
    let default = http(mesh());
    assert_eq!((&*default.server_name, default.accept_http_10, default.tracing), ("envoy", false, true));
    assert_eq!(default.access_log, []);
    assert!(!http(mesh().configure(|mesh| mesh.enable_tracing = Some(false))).tracing);
    let own = |value: &'static str| {
        move |proxy: &mut crate::compile::Proxy| {
            drop(proxy.metadata.insert("HTTP10".to_owned(), value.to_owned()));
        }
    };
    let of_mesh = |mesh: &mut crate::mesh::MeshConfig| {
        mesh.default_config.proxy_metadata.insert("ISTIO_META_HTTP10".to_owned(), "1".to_owned());
    };
    assert!(http(mesh().seen_by(own("1"))).accept_http_10);
    assert!(!http(mesh().seen_by(own("true"))).accept_http_10);
    assert!(http(mesh().configure(of_mesh)).accept_http_10);
    assert!(!http(mesh().configure(of_mesh).seen_by(own("0"))).accept_http_10);
}

#[test]
fn paths_are_normalized_as_the_mesh_says() {
    let check = |told, normalize_path, merge_slashes, escaped_slashes| {
        let output = Mesh::new("").configure(|mesh| mesh.path_normalization = told).compile();
        let made = manager(&output.compiled.update.listeners[0]).path_normalization;
        assert_eq!(made, PathNormalization { normalize_path, merge_slashes, escaped_slashes });
    };
    use EscapedSlashes::{KeepUnchanged, UnescapeAndForward};
    check(None, true, false, KeepUnchanged);
    check(Some(Normalization::None), false, false, KeepUnchanged);
    check(Some(Normalization::Base), true, false, KeepUnchanged);
    check(Some(Normalization::MergeSlashes), true, true, KeepUnchanged);
    check(Some(Normalization::DecodeAndMergeSlashes), true, true, UnescapeAndForward);
}

#[test]
fn access_logs() {
    let check = |format: Option<&str>, expected: &str, codes: &[&str]| {
        let configure = |mesh: &mut crate::mesh::MeshConfig| {
            mesh.access_log_file = Some("/dev/stdout".to_owned());
            mesh.access_log_format = format.map(str::to_owned);
        };
        let output = Mesh::new("").configure(configure).compile();
        let [log] = &manager(&output.compiled.update.listeners[0]).access_log[..] else { panic!() };
        let LogFormat::Text(format) = &log.format else { panic!() };
        assert!(format.text().starts_with(expected), "{}", format.text());
        assert!(format.text().ends_with('\n') && !format.text().ends_with("\n\n"));
        assert_eq!(output.codes(), codes);
    };
    check(Some("%PROTOCOL%"), "%PROTOCOL%\n", &[]);
    check(Some("%PROTOCOL%\n"), "%PROTOCOL%\n", &[]);
    check(Some("%NOTHING%"), "[%START_TIME%]", &["access-log-format"]);
    check(None, "[%START_TIME%]", &[]);
}

#[test]
fn access_logs_in_json() {
    let check = |format: Option<&str>, expected: &[&str], codes: &[&str]| {
        let configure = |mesh: &mut crate::mesh::MeshConfig| {
            mesh.access_log_file = Some("/dev/stdout".to_owned());
            mesh.access_log_encoding = AccessLogEncoding::Json;
            mesh.access_log_format = format.map(str::to_owned);
        };
        let output = Mesh::new("").configure(configure).compile();
        let [log] = &manager(&output.compiled.update.listeners[0]).access_log[..] else { panic!() };
        let LogFormat::Json(format) = &log.format else { panic!() };
        let keys: Vec<&String> = format.value().as_object().unwrap().keys().collect();
        assert!(keys.iter().take(expected.len()).eq(expected), "{keys:?}");
        assert_eq!(output.codes(), codes);
        let envoy = crate::envoy_json::listener(&output.compiled.update.listeners[0]);
        let manager = &envoy["filter_chains"][0]["filters"][0]["typed_config"];
        assert_eq!(manager["access_log"][0]["typed_config"]["log_format"]["json_format"], *format.value());
    };
    check(Some(r#"{"a": "%PROTOCOL%", "b": 5}"#), &["a", "b"], &[]);
    check(Some("%PROTOCOL%"), &["authority", "bytes_received"], &["access-log-format"]);
    check(None, &["authority", "bytes_received"], &[]);
}
