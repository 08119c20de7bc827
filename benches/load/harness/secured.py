"""Clients in mutual TLS, as workloads of a mesh make handshakes, and what a server of it must refuse."""

import contextlib
import ssl

from .peers import HTTP1, HTTP2
from .processes import Failure
from .wire import HOST
from .wire import connect as connect_plain

LOOPBACK = "127.0.0.1"
# What clients of Istio offer for each version of HTTP.
OFFERED = {
    HTTP1: ["istio-http/1.1", "istio", "http/1.1"],
    HTTP2: ["istio-h2", "istio", "h2"],
}
ANSWERED = b"HTTP/1.1 200"
QUESTION = f"GET /items/7 HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()


def context(client, server, spoken=HTTP1, shows=True):
    """How a client makes handshakes for that version of HTTP, perhaps without showing its certificate."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False  # its name is a URI, see `connect`
    made.load_verify_locations(server.roots)
    made.set_alpn_protocols(OFFERED[spoken])
    if shows:
        made.load_cert_chain(client.chain, client.key)
    return made


def connect(made, port, server, number=0, session=None):
    """A connection in TLS with the server, which must be that; `number` as for a plain one."""
    raw = connect_plain(port, number)
    try:
        secured = made.wrap_socket(raw, session=session)
    except BaseException:
        raw.close()
        raise
    names = secured.getpeercert().get("subjectAltName", ())
    if names != (("URI", server.uri),):
        secured.close()
        raise Failure(f"the server must be {server.uri}, not {names}")
    return secured


def ask_once(connection):
    """Asks for one answer, after which the server closes; returns what came, nothing if the connection broke."""
    heard = b""
    with contextlib.suppress(OSError):
        connection.sendall(QUESTION)
        while more := connection.recv(65_536):
            heard += more
    return heard


def verify_server(port, client, server):
    """Makes sure that a server takes no plaintext, nobody without a certificate, and resumes no session."""
    with contextlib.closing(connect_plain(port)) as plain:
        if said := ask_once(plain):
            raise Failure(f"plaintext must not be answered, but it said {said!r}")
    with contextlib.suppress(OSError), connect(context(client, server, shows=False), port, server) as stranger:
        if said := ask_once(stranger):
            raise Failure(f"who shows no certificate must not be answered, but it said {said!r}")
    for newest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        _verify_no_session(port, client, server, newest)


def _verify_no_session(port, client, server, newest):
    asking, session = context(client, server), None
    asking.maximum_version = newest
    for _ in range(2):
        with connect(asking, port, server, session=session) as made:
            version = made.version()
            if not ask_once(made).startswith(ANSWERED):
                raise Failure(f"who shows its certificate by {version} must be answered")
            session = made.session
            if made.session_reused or session.has_ticket:
                raise Failure(f"a session of {version} was resumed, or a ticket given for it")
