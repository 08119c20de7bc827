"""A hop of mutual TLS under load, each side of it, and whether what was measured was one."""

from dataclasses import replace

from .figures import Limits
from .measure import FLOOD, STREAMS, Bench
from .mutual import CLIENT, SERVER, SIDES, STREAMS_MAX, Spoken
from .peers import HTTP2
from .processes import Failure

HTTP1_LIMITS = Limits(gate_envoy=0.55, goal_envoy=0.45, goal_c=None, gate_resident_mb=None)
HTTP2_LIMITS = Limits(gate_envoy=0.7, goal_envoy=0.6, goal_c=None, gate_resident_mb=None)
# Handshakes that a run of so many connections may add: connections of the hop stay from run to run.
HANDSHAKES_OVER = 8

_HTTP1 = replace(
    FLOOD, name="http1", title=f"HTTP/1.1 over {FLOOD.title}", wire=Spoken(), limits=HTTP1_LIMITS
)
_HTTP2 = replace(
    _HTTP1,
    name="http2",
    title="HTTP/2 over 64 connections, a stream on each, as fast as they go",
    load=("flood", "--streams", "1"),
    wire=Spoken(HTTP2, HTTP2),
    limits=HTTP2_LIMITS,
)
_STREAMS = replace(
    _HTTP2,
    name="http2-streams",
    title="HTTP/2 over 4 connections, 16 streams on each, as fast as they go",
    load=STREAMS,
    connections=4,
)


def _as_server(shape, streams_max):
    """The other end makes as many connections of the load's, for it puts no more streams on each."""
    title = f"as the server of mutual TLS, {shape.title}"
    wire = replace(shape.wire, streams_max=streams_max)
    return replace(shape, name=f"{SERVER}-{shape.name}", title=title, wire=wire)


def _as_client(shape):
    """Over HTTP/2 it is the proxy's matter how many connections it makes to the other end."""
    return replace(shape, name=f"{CLIENT}-{shape.name}", title=f"as the client of mutual TLS, {shape.title}")


SHAPES = {
    shape.name: shape
    for shape in (
        _as_server(_HTTP1, STREAMS_MAX),
        _as_server(_HTTP2, 1),
        _as_server(_STREAMS, 16),
        *map(_as_client, (_HTTP1, _HTTP2, _STREAMS)),
    )
}


def side_of(shape):
    """Which end of the hop is measured."""
    return next(side for side in SIDES if shape.name.startswith(f"{side}-"))


def connections_of(shape):
    """How many connections make up the hop at least."""
    chosen_by_proxy = side_of(shape) == CLIENT and shape.wire.between == HTTP2
    return 1 if chosen_by_proxy else shape.connections


class HopBench(Bench):
    """As for plain requests; besides, connections of the hop must be kept alive."""

    def run(self, shape, number, peer):
        before = peer.measured.handshakes()
        run = super().run(shape, number, peer)
        made = peer.measured.handshakes() - before
        if made > shape.connections + HANDSHAKES_OVER:
            raise Failure(f"{made:,} handshakes in one run: connections of the hop are not kept alive")
        spoken, wanted = shape.wire.between, connections_of(shape)
        if (found := peer.other.connections()) < wanted:
            raise Failure(f"{found:,} connections of {spoken} make up the hop, not {wanted:,}")
        return run
