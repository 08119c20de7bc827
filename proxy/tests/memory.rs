//! What the process holds resident.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

mod process;

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::net::UdpSocket;
use std::path::Path;

use process::{Weft, eventually, mesh};

/// Most that a service takes with two endpoints, the pods behind them and a tenth of a DestinationRule with two subsets and
/// of a VirtualService with two rules. It takes about 9,000 bytes, and took 11,000 when each part kept names of its own and
/// room for what it does not say.
const SERVICE_BYTES_MAX: u64 = 9_800;

/// Services of the larger mesh beyond those of the smaller one.
const MORE_SERVICES: u64 = 1_000;

#[test]
fn a_service_takes_little() {
    let (small, large) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_services(small.path(), 200);
    write_services(large.path(), 200 + MORE_SERVICES);
    let (mut small, mut large) = (run(small.path(), &[]), run(large.path(), &[]));
    small.ready();
    large.ready();
    // What the start held besides is given back step by step.
    let (least, told) = (Cell::new(u64::MAX), Cell::new(0));
    eventually(&format!("a service takes at most {SERVICE_BYTES_MAX} bytes"), || {
        least.set(least.get().min(small.memory_kib("RssAnon")));
        told.set(large.memory_kib("RssAnon").saturating_sub(least.get()) * 1024 / MORE_SERVICES);
        (told.get() <= SERVICE_BYTES_MAX).then_some(())
    });
}

/// Pages of the program that came back for it are let go again, not only those that the start needed.
#[test]
fn pages_of_the_program_are_let_go_whenever_dns_was_asked() {
    const PAGES_KIB: u64 = 1_024;
    let directory = tempfile::tempdir().unwrap();
    mesh(directory.path(), ([127, 0, 0, 1], 9).into());
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: pay, namespace: shop}\n\
                 spec: {hosts: [pay.example], location: MESH_EXTERNAL, resolution: DNS, \
                 ports: [{number: 8000, name: http, protocol: HTTP}]}\n";
    fs::write(directory.path().join("entry.yaml"), entry).unwrap();
    // Nobody answers there any more, so the name is asked for again after one second, two, four.
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut weft = run(directory.path(), &["--resolver", &nobody]);
    weft.ready();
    let (most, times) = (Cell::new(0), Cell::new(0));
    eventually("pages are let go twice", || {
        let now = weft.memory_kib("RssFile");
        if now + PAGES_KIB < most.get() {
            times.set(times.get() + 1);
            most.set(now);
        }
        most.set(most.get().max(now));
        (times.get() == 2).then_some(())
    });
}

fn run(directory: &Path, more: &[&str]) -> Weft {
    let mut arguments =
        vec!["--config", directory.to_str().unwrap(), "--namespace", "ns-0", "--workers", "1"];
    arguments.extend(["--listen", "127.0.0.1:0=outbound:8000"]);
    arguments.extend(more);
    Weft::run(&arguments)
}

/// Writes so many services, as `kubectl` would tell them.
fn write_services(directory: &Path, count: u64) {
    let mut text = String::new();
    for number in 0..count {
        let (name, namespace) = (format!("svc-{number:05}"), format!("ns-{}", number / 100));
        let metadata = |kind: &str, name: &str, labels: &str| {
            format!(
                "kind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}\n"
            )
        };
        let [high, low] = [number / 250, number % 250];
        let addresses = [format!("10.1{high}.{low}.1"), format!("10.1{high}.{low}.2")];
        let service = metadata("Service", &name, &format!("app: {name}"));
        let slice = metadata("EndpointSlice", &name, &format!("kubernetes.io/service-name: {name}"));
        write!(
            text,
            "---\napiVersion: v1\n{service}spec: {{clusterIP: 10.96.{high}.{low}, clusterIPs: [10.96.{high}.{low}], \
             type: ClusterIP, selector: {{app: {name}}}, ports: [{{name: http, port: 8000, protocol: TCP, targetPort: 8080}}]}}\n\
             ---\napiVersion: discovery.k8s.io/v1\n{slice}addressType: IPv4\n\
             ports: [{{name: http, port: 8080, protocol: TCP}}]\nendpoints:\n"
        )
        .unwrap();
        let mut pods = String::new();
        for (index, address) in addresses.iter().enumerate() {
            let pod = metadata("Pod", &format!("{name}-{index}"), &format!("app: {name}, version: v{index}"));
            writeln!(
                text,
                "- {{addresses: [{address}], conditions: {{ready: true}}, nodeName: node-1, \
                 targetRef: {{kind: Pod, name: {name}-{index}, namespace: {namespace}}}}}"
            )
            .unwrap();
            write!(
                pods,
                "---\napiVersion: v1\n{pod}spec: {{nodeName: node-1, serviceAccountName: {name}}}\n\
                 status: {{podIP: {address}, podIPs: [{{ip: {address}}}]}}\n"
            )
            .unwrap();
        }
        text.push_str(&pods);
        if number % 10 == 0 {
            text.push_str(&rules(&name, &namespace));
        }
    }
    fs::write(directory.join("services.yaml"), text).unwrap();
}

/// The rules of one service.
fn rules(name: &str, namespace: &str) -> String {
    let metadata = format!("metadata: {{name: {name}, namespace: {namespace}}}");
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n{metadata}\n\
         spec: {{host: {name}, subsets: [{{name: v0, labels: {{version: v0}}}}, {{name: v1, labels: {{version: v1}}}}]}}\n\
         ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n{metadata}\n\
         spec:\n  hosts: [{name}]\n  http:\n  \
         - match: [{{headers: {{x-user: {{exact: tester}}}}}}]\n    route: [{{destination: {{host: {name}, subset: v1}}}}]\n  \
         - route: [{{destination: {{host: {name}, subset: v0}}, weight: 90}}, \
         {{destination: {{host: {name}, subset: v1}}, weight: 10}}]\n"
    )
}
