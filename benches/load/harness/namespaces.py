"""Two network namespaces joined by a cable: a pod's, and one for everybody else."""

import ctypes
import os
import subprocess

from .processes import Failure

POD_ADDRESS = "10.244.1.10"
FAR_ADDRESSES = ("10.244.1.21", "10.244.1.22")
PROXY_USER = 1337
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def enter(name, user=None):
    """What a child does to be in a namespace, and then somebody."""

    def become():
        with open(f"/run/netns/{name}", "rb") as namespace:
            if _libc.setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter the namespace {name}")
        if user is not None:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)

    return become


class Namespaces:
    """Both, for the time of a `with`. Needs root and iproute2; raises `Failure` without."""

    def __init__(self):
        self.pod = f"weft-bench-{os.getpid()}-pod"
        self.far = f"weft-bench-{os.getpid()}-far"

    def __enter__(self):
        if os.geteuid() != 0:
            raise Failure("network namespaces are made by root only")
        try:
            for name in (self.pod, self.far):
                ip("netns", "add", name)
                ip("-n", name, "link", "set", "lo", "up")
            cable = ("link", "add", "cable", "netns", self.pod, "type", "veth")
            ip(*cable, "peer", "name", "cable", "netns", self.far)
            for name, addresses in ((self.pod, [POD_ADDRESS]), (self.far, FAR_ADDRESSES)):
                for address in addresses:
                    ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
                ip("-n", name, "link", "set", "cable", "up")
            ip("-n", self.pod, "route", "add", "default", "via", FAR_ADDRESSES[0])
        except Failure:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in (self.pod, self.far):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def ip(*arguments):
    """Calls `ip`."""
    call("ip", *arguments)


def call(*command, become=None):
    """Calls a command that ends by itself; returns what it says."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, preexec_fn=become
        )
    except FileNotFoundError:
        raise Failure(f"there is no {words[0]}") from None
    if done.returncode:
        raise Failure(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout
