"""A name server in a network namespace that knows every name. A pod has one that answers; where it never does, what is measured
is a proxy that keeps asking."""

import contextlib
import ipaddress
import socket
import threading

from .namespaces import enter, ip

PORT = 53
QUESTION_BYTES_MAX = 512
HEAD_BYTES = 12
# Flags of an answer that was looked for; an A record to the question's name, for an hour, in a block for documentation.
ANSWERED = b"\x81\x80"
TYPE_A = b"\x00\x01"
RECORD = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x0e\x10\x00\x04" + bytes([192, 0, 2, 1])


def answer(question):
    """What is said to a question (RFC 1035 section 4.1); `None` to what is none."""
    end = question.find(b"\x00", HEAD_BYTES)
    if len(question) < HEAD_BYTES or end < 0 or len(question) < end + 5:
        return None
    asked = question[HEAD_BYTES : end + 5]
    records = RECORD if asked[-4:-2] == TYPE_A else b""
    counts = b"\x00\x01" + (b"\x00\x01" if records else b"\x00\x00") + b"\x00" * 4
    return question[:2] + ANSWERED + counts + asked + records


def name_server(path="/etc/resolv.conf"):
    """The first one that programs here ask; `None` if it is on this host, or there is none."""
    with open(path, encoding="utf-8") as lines:
        words = [line.split() for line in lines]
    for said in words:
        if len(said) > 1 and said[0] == "nameserver":
            address = ipaddress.ip_address(said[1].partition("%")[0])
            return None if address.is_loopback or address.version == 6 else str(address)
    return None


@contextlib.contextmanager
def resolver(namespace):
    """Answers in this namespace, at the address that programs ask."""
    address = name_server()
    if address is None:
        yield
        return
    ip("-n", namespace, "address", "add", f"{address}/32", "dev", "lo")
    made = []

    def make():
        # Only this thread is there, and its socket stays there.
        enter(namespace)()
        made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    with made[0] as bound:
        bound.bind((address, PORT))
        over = threading.Event()
        thread = threading.Thread(target=serve, args=(bound, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def serve(bound, over):
    """Answers until it is over."""
    bound.settimeout(0.1)
    while not over.is_set():
        try:
            question, asker = bound.recvfrom(QUESTION_BYTES_MAX)
        except TimeoutError:
            continue
        said = answer(question)
        if said is not None:
            bound.sendto(said, asker)
