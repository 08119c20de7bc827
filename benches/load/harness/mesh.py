"""A large mesh as YAML, the same in every run: written as `kubectl get -o yaml` tells it, without what no proxy reads.

Services are spread over namespaces of a hundred; all that Kubernetes says of a namespace is in one file. Each
DestinationRule and each VirtualService has a file of its own, so that one object can be changed by one rename. Every
endpoint is a pod; the endpoints of a service take turns in being of version v1 and v2.
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
    for number in range(mesh.rules):
        (directory / f"destination-rule-{number:05}.yaml").write_text(_destination_rule(number))
    for number in range(mesh.routed):
        (directory / f"virtual-service-{number:05}.yaml").write_text(virtual_service(number))


def change(directory, number, turn):
    """Renames into place a virtual service whose answers say `turn`."""
    target = directory / f"virtual-service-{number:05}.yaml"
    fresh = target.with_suffix(".new")
    fresh.write_text(virtual_service(number, turn))
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


def _service(mesh, number, backend):
    called, within = name(number), namespace(number)
    addresses = [str(POD_IPS + number * mesh.endpoints_each + i) for i in range(mesh.endpoints_each)]
    port = 8080
    if backend and number == 0:
        addresses, port = backend
    text = f"""\
---
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
  - name: http
    port: {PORT}
    protocol: TCP
    targetPort: {port}
  selector:
    app: {called}
  type: ClusterIP
---
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
    slots = [(f"{called}-{i}", address, VERSIONS[i % 2]) for i, address in enumerate(addresses)]
    text += "".join(_endpoint(pod, within, address) for pod, address, _ in slots)
    return text + "".join(_pod(pod, within, called, address, version) for pod, address, version in slots)


def _endpoint(pod, within, address):
    return f"""\
- addresses:
  - {address}
  conditions:
    ready: true
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


def _destination_rule(number):
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
      version: v2
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
