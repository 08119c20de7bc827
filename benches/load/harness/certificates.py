"""Certificates of two workloads and their authority, made anew for each run by the openssl program: ECDSA P-256, one
SPIFFE URI each, in the files of an identity as weft reads them."""

import base64
import hashlib
import pathlib
import subprocess
from dataclasses import dataclass

from .processes import Failure

TRUST_DOMAIN = "cluster.local"
# Service accounts of the workload that asks and of the one that is asked.
CLIENT, SERVER = "web", "catalog"
CHAIN_FILE, KEY_FILE, ROOTS_FILE = "cert-chain.pem", "key.pem", "root-cert.pem"
DAYS = 2

NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
AUTHORITY_NAMES = """\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""
WORKLOAD_NAMES = """\
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = critical, URI:{identity}
"""


@dataclass(frozen=True)
class Identity:
    """A workload's: the directory with its files, and its SPIFFE URI."""

    directory: pathlib.Path
    uri: str

    @property
    def chain(self):
        return self.directory / CHAIN_FILE

    @property
    def key(self):
        return self.directory / KEY_FILE

    @property
    def roots(self):
        return self.directory / ROOTS_FILE

    def fingerprint(self):
        """SHA-256 of its certificate, as x-forwarded-client-cert tells it."""
        return hashlib.sha256(der(self.chain.read_text())).hexdigest()


def identity_uri(account):
    """The SPIFFE URI of a service account of the namespace `shop`."""
    return f"spiffe://{TRUST_DOMAIN}/ns/shop/sa/{account}"


def make(openssl, directory):
    """The identities of the client and of the server, below a directory that is there."""
    settings = directory / "authority.cnf"
    settings.write_text(AUTHORITY_NAMES)
    root, root_key = directory / "root.pem", directory / "root-key.pem"
    request = [openssl, "req", "-x509", "-config", settings, "-extensions", "authority", *NEW_KEY]
    _call([*request, "-subj", "/O=weft benches", "-days", DAYS, "-keyout", root_key, "-out", root])
    return tuple(_issue(openssl, directory, account, root, root_key) for account in (CLIENT, SERVER))


def _issue(openssl, directory, account, root, root_key):
    home = directory / account
    home.mkdir()
    made = Identity(home, identity_uri(account))
    request, names = home / "request.pem", home / "names.cnf"
    names.write_text(WORKLOAD_NAMES.format(identity=made.uri))
    asked = [openssl, "req", "-new", "-config", directory / "authority.cnf", *NEW_KEY, "-subj", "/"]
    _call([*asked, "-keyout", made.key, "-out", request])
    signed = [openssl, "x509", "-req", "-in", request, "-CA", root, "-CAkey", root_key, "-CAcreateserial"]
    _call([*signed, "-days", DAYS, "-extfile", names, "-out", made.chain])
    made.roots.write_text(root.read_text())
    return made


def der(pem):
    """The bytes of the first certificate of a text."""
    _, begun, rest = pem.partition("-----BEGIN CERTIFICATE-----")
    inner, ended, _ = rest.partition("-----END CERTIFICATE-----")
    if not begun or not ended:
        raise Failure("there is no certificate")
    return base64.b64decode(inner)


def _call(command):
    words = [str(word) for word in command]
    done = subprocess.run(words, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Failure(f"{' '.join(words)} said: {done.stderr.strip()[-500:]}")
