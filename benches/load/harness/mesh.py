"""A large mesh as YAML, the same in every run: written as `kubectl get -o yaml` tells it, without what no proxy reads.

Services are spread over namespaces of a hundred; all that Kubernetes says of a namespace is in one file, but for the Service
and the EndpointSlice of the first service. These, each DestinationRule and each VirtualService have a file of their own, so
that one object can be changed by one rename. Every endpoint is a pod; the endpoints of a service take turns in being of version v1 and v2.
"""

import ipaddress
import os
import pathlib
from dataclasses import dataclass

NAMESPACE_SERVICES = 100
PORT = 8000
CLUSTER_IPS = ipaddress.ip_address("10.96.0.1")
POD_IPS = ipaddress.ip_address("10.128.0.2")
VERSIONS = ("v1", "v2")


@dataclass(frozen=True)
class Mesh:
    """How large it is. The first services have the rules and the virtual services."""

    services: int
    endpoints_each: int = len(VERSIONS)
    rules: int = 0  # DestinationRules, each with two subsets
    routed: int = 0  # VirtualServices, each with two rules

    @property
    def endpoints(self):
        """How many endpoints the services have together."""
        return self.services * self.endpoints_each


def name(number):
    """The name of a service."""
    return f"svc-{number:05}"


def namespace(number):
    """The namespace of a service."""
    return f"ns-{number // NAMESPACE_SERVICES:03}"


def host(number):
    """The host by which a client asks for a service."""
    return f"{name(number)}.{namespace(number)}.svc.cluster.local:{PORT}"


def write(mesh, directory, backend=None):
    """Writes the mesh into an empty directory. The endpoints of the first service are at `backend`, addresses and port."""
    for first in range(0, mesh.services, NAMESPACE_SERVICES):
        numbers = range(first, min(first + NAMESPACE_SERVICES, mesh.services))
        text = _namespace(namespace(first)) + "".join(_service(mesh, number, backend) for number in numbers)
        (directory / f"{namespace(first)}.yaml").write_text(text)
    (directory / "service-00000.yaml").write_text(_kubernetes_service(0, _port(0, backend)))
    (directory / "endpoint-slice-00000.yaml").write_text(_endpoint_slice(mesh, 0, backend))
    for number in range(mesh.rules):
        (directory / f"destination-rule-{number:05}.yaml").write_text(_destination_rule(number))
    for number in range(mesh.routed):
        (directory / f"virtual-service-{number:05}.yaml").write_text(virtual_service(number))


KINDS = ("EndpointSlice", "DestinationRule", "Service", "VirtualService")


def change(mesh, directory, kind, turn, backend=None):
    """Renames an object of the first service into place.

    What a tester is answered tells of it: with every other turn, the EndpointSlice has no endpoint ready, the rule's subset v2
    is the endpoint of v1, and the service has no port that endpoints have; the virtual service says the turn.
    """
    odd = turn % 2 == 1
    name, text = {
        "EndpointSlice": ("endpoint-slice", _endpoint_slice(mesh, 0, backend, ready=not odd)),
        "DestinationRule": ("destination-rule", _destination_rule(0, VERSIONS[0 if odd else 1])),
        "Service": ("service", _kubernetes_service(0, _port(0, backend), "http-other" if odd else "http")),
        "VirtualService": ("virtual-service", virtual_service(0, turn)),
    }[kind]
    target = directory / f"{name}-00000.yaml"
    fresh = target.with_suffix(".new")
    fresh.write_text(text)
    os.rename(fresh, target)


def size(directory):
    """Bytes of all files."""
    return sum(file.stat().st_size for file in pathlib.Path(directory).glob("*.yaml"))


def _namespace(called):
    return f"""\
apiVersion: v1
kind: Namespace
metadata:
  name: {called}
"""


def _port(number, backend):
    return backend[1] if backend and number == 0 else 8080


def _slots(mesh, number, backend):
    """The endpoints of a service: pod, address and version of each."""
    addresses = [str(POD_IPS + number * mesh.endpoints_each + i) for i in range(mesh.endpoints_each)]
    if backend and number == 0:
        addresses = backend[0]
    return [(f"{name(number)}-{i}", address, VERSIONS[i % 2]) for i, address in enumerate(addresses)]


def _service(mesh, number, backend):
    own = "" if number == 0 else "---\n" + _kubernetes_service(number, 8080)
    own += "" if number == 0 else "---\n" + _endpoint_slice(mesh, number, backend)
    slots = _slots(mesh, number, backend)
    return own + "".join(
        _pod(pod, namespace(number), name(number), address, version) for pod, address, version in slots
    )


def _kubernetes_service(number, target, called_port="http"):
    called, within = name(number), namespace(number)
    return f"""\
apiVersion: v1
kind: Service
metadata:
  name: {called}
  namespace: {within}
  labels:
    app: {called}
spec:
  clusterIP: {CLUSTER_IPS + number}
  clusterIPs:
  - {CLUSTER_IPS + number}
  ports:
  - name: {called_port}
    port: {PORT}
    protocol: TCP
    targetPort: {target}
  selector:
    app: {called}
  type: ClusterIP
"""


def _endpoint_slice(mesh, number, backend, ready=True):
    called, within, port = name(number), namespace(number), _port(number, backend)
    text = f"""\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {called}-7xk2p
  namespace: {within}
  labels:
    kubernetes.io/service-name: {called}
addressType: IPv4
ports:
- name: http
  port: {port}
  protocol: TCP
endpoints:
"""
    slots = _slots(mesh, number, backend)
    return text + "".join(_endpoint(pod, within, address, ready) for pod, address, _ in slots)


def _endpoint(pod, within, address, ready):
    return f"""\
- addresses:
  - {address}
  conditions:
    ready: {str(ready).lower()}
    serving: true
    terminating: false
  nodeName: node-1
  targetRef:
    kind: Pod
    name: {pod}
    namespace: {within}
"""


def _pod(pod, within, service, address, version):
    return f"""\
---
apiVersion: v1
kind: Pod
metadata:
  name: {pod}
  namespace: {within}
  labels:
    app: {service}
    version: {version}
spec:
  nodeName: node-1
  serviceAccountName: {service}
status:
  phase: Running
  podIP: {address}
  podIPs:
  - ip: {address}
"""


def _destination_rule(number, second=VERSIONS[1]):
    return f"""\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: {name(number)}
  namespace: {namespace(number)}
spec:
  host: {name(number)}
  subsets:
  - name: v1
    labels:
      version: v1
  - name: v2
    labels:
      version: {second}
"""


def virtual_service(number, turn=0):
    """Two rules: one by a header, and one for all else, whose answers say `turn`."""
    called = name(number)
    return f"""\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: {called}
  namespace: {namespace(number)}
spec:
  hosts:
  - {called}
  http:
  - name: testers
    match:
    - headers:
        x-user:
          exact: tester
    route:
    - destination:
        host: {called}
        subset: v2
  - name: everyone
    headers:
      response:
        set:
          x-turn: "{turn}"
    route:
    - destination:
        host: {called}
        subset: v1
      weight: 90
    - destination:
        host: {called}
        subset: v2
      weight: 10
"""
