"""What an idle connection in mutual TLS costs, at each end of a hop. The other end is a client that holds its connections, or
a stock Envoy before the backend."""

import contextlib

from .idle import IdleBench
from .mutual import CLIENT, ENDS, SERVER, EnvoyEnd, Ground, Hop, Spoken
from .peers import HTTP1, HTTP2, Backend
from .secured import LOOPBACK, connect, context, verify_server
from .wire import BackendState, speak

NAMES = tuple(ENDS)


class SecuredIdleBench(IdleBench):
    """As for plain connections; `openssl` makes certificates, `envoy` is the server's end when the client's is measured."""

    def __init__(self, processes, load, cpus, connections, openssl, envoy, directory):
        super().__init__(processes, load, cpus, connections)
        self._envoy = envoy
        self._ground = Ground(processes, openssl, directory)
        self._client, self._server = (self._ground.identities[side] for side in (CLIENT, SERVER))
        self._contexts = {spoken: context(self._client, self._server, spoken) for spoken in (HTTP1, HTTP2)}

    def measure(self, case, peer, directory):
        versions = {"v1": LOOPBACK}
        backend = Backend(self._processes, self._load, self._load_cpus, directory, versions=versions)
        with contextlib.ExitStack() as ends:
            ends.callback(self._processes.stop, backend.process)
            if case.side == "downstream":
                proxy = ENDS[peer.name](peer.program, SERVER, peer.arguments)
                ends.callback(proxy.stop, self._processes)
                proxy.start(self._ground, self._proxy_cpus, directory / SERVER, backend.port, Spoken())
                verify_server(proxy.port, self._client, self._server)
                return self._measured(case, proxy, None)
            measured = ENDS[peer.name](peer.program, CLIENT, peer.arguments)
            hop = Hop(measured, EnvoyEnd(self._envoy, SERVER))
            ends.callback(hop.stop, self._processes)
            spoken = Spoken(between=case.spoken, streams_max=1)
            hop.start(self._ground, backend, (self._proxy_cpus, self._load_cpus), directory / "hop", spoken)
            hop.verify(self._ground, spoken)
            return self._measured(case, hop, SecuredFar(self._processes, hop.other, backend))

    def _open(self, case, peer, number):
        if case.side == "upstream":
            return super()._open(case, peer, number)
        secured = connect(self._contexts[case.spoken], peer.port, self._server, number)
        return speak(case.spoken, secured)


class SecuredFar:
    """What a proxy's upstream connections in mutual TLS lead to: an Envoy before the backend."""

    def __init__(self, processes, end, backend):
        self._processes, self._end, self._backend = processes, end, backend

    def backend_state(self):
        """The backend, to be asked past both."""
        return BackendState(LOOPBACK, self._backend.port)

    def connections(self, _):
        """How many connections the proxy has with it."""
        return self._end.connections()

    def stop(self):
        """Ends it, and with it the connections."""
        self._end.stop(self._processes)
