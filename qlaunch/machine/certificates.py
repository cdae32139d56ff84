"""The certificates for SPICE over TLS: a CA of the user's own, and one for this computer from it.

Both are made when they are first wanted. The computer's is made anew when it soon runs out, or when
it lacks a name that is wanted. The CA stays for ten years: viewers are told of it.
"""

from __future__ import annotations

import datetime
import fcntl
import ipaddress
import os
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import frozen

from qlaunch.errors import HostError
from qlaunch.store import files, paths

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

CA_DAYS = 3650
DAYS = 397
# A certificate with fewer days left is made anew.
RENEW_DAYS = 30
_CA, _CA_KEY = "ca.pem", "ca.key"
# With its key in the same file, so that nobody sees the one without the other.
_SERVER, _NOTE = "server.pem", "server.json"
_ANY = ("0.0.0.0", "::", "*")


@frozen(kw_only=True)
class Certificates:
    """Where they are: the CA's certificate, and this computer's with its key."""

    ca: str
    server: str


def names_for(listen: Iterable[str], more: Iterable[str] = ()) -> tuple[str, ...]:
    """The names by which clients may call this computer when it listens on `listen`."""
    found = {socket.gethostname(), "localhost", "127.0.0.1", "::1", *more}
    for host in listen:
        found |= _addresses() if host in _ANY else {host}
    return tuple(sorted(name for name in found if name))


def _addresses() -> set[str]:
    import psutil

    return {
        address.address.partition("%")[0]
        for each in psutil.net_if_addrs().values()
        for address in each
        if address.family in (socket.AF_INET, socket.AF_INET6)
    }


def ensure(names: Iterable[str]) -> Certificates:
    """The certificates, made or renewed if need be, for `names` and all that were asked for before.

    Raises: HostError.
    """
    folder = os.path.join(paths.data_dir(), "tls")
    found = Certificates(
        ca=os.path.join(folder, _CA),
        server=os.path.join(folder, _SERVER),
    )
    wanted = set(names)
    if _is_good(folder, wanted):
        return found
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise files.no_write(folder, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # whoever has it needs a tenth of a second
        if not _is_good(folder, wanted):
            _make(folder, wanted | set(_note(folder).get("names", ())))
    finally:
        os.close(lock)
    return found


def _note(folder: str) -> dict[str, list[str]]:
    note = files.read_json(os.path.join(folder, _NOTE))
    return note if isinstance(note, dict) else {}


def _is_good(folder: str, names: set[str]) -> bool:
    """Whether nothing has to be made. What is in the certificate is noted beside it, so that most
    who ask need no cryptography."""
    note = _note(folder)
    there = all(os.path.exists(os.path.join(folder, name)) for name in (_CA, _SERVER))
    until = str(note.get("renew", ""))
    return there and names <= set(note.get("names", ())) and _now().isoformat() < until


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None, microsecond=0)


def _make(folder: str, names: set[str]) -> None:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        raise HostError(
            f"there is no TLS without Python's cryptography: {error}",
            hint="pip install cryptography",
        ) from error

    # The note is written last: as long as there is none, everything is made again.
    files.remove(os.path.join(folder, _NOTE))
    ca, ca_key = _ca(folder)
    certificate, key = _issue(ca, ca_key, sorted(names))
    renew = min(certificate.not_valid_after_utc, ca.not_valid_after_utc)
    renew -= datetime.timedelta(days=RENEW_DAYS)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    files.write_bytes(os.path.join(folder, _SERVER), private + public)
    note = {"names": sorted(names), "renew": renew.replace(tzinfo=None).isoformat()}
    files.write_json(os.path.join(folder, _NOTE), note)


def _ca(folder: str) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    """The CA, made if there is none or if it soon runs out."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    path, key_path = os.path.join(folder, _CA), os.path.join(folder, _CA_KEY)
    try:
        with open(path, "rb") as file, open(key_path, "rb") as key_file:
            ca = x509.load_pem_x509_certificate(file.read())
            key = serialization.load_pem_private_key(key_file.read(), None)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise HostError(
            f"{folder} holds no usable CA: {error}", hint="remove that folder, and it is made anew"
        ) from error
    else:
        left = ca.not_valid_after_utc.replace(tzinfo=None) - _now()
        if isinstance(key, ec.EllipticCurvePrivateKey) and left.days > RENEW_DAYS:
            return ca, key
    made = ec.generate_private_key(ec.SECP256R1())
    ca = _sign_ca(made)
    encoding = serialization.Encoding.PEM
    private = made.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files.write_bytes(key_path, private)
    files.write_bytes(path, ca.public_bytes(encoding))
    return ca, made


def _sign_ca(key: EllipticCurvePrivateKey) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import NameOID

    title = f"qlaunch on {socket.gethostname()}"[:64]
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip
    return (
        _builder(name, name, key, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _issue(
    ca: x509.Certificate, ca_key: EllipticCurvePrivateKey, names: list[str]
) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    title = socket.gethostname()[:64] or "qlaunch"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    certificate = (
        _builder(subject, ca.subject, key, DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_general(names)), critical=False)
        .add_extension(authority, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return certificate, key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    from cryptography import x509

    now = _now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A viewer's clock may be a little behind.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _general(names: list[str]) -> list[x509.GeneralName]:
    from cryptography import x509

    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            try:
                found.append(x509.DNSName(name))
            except ValueError as error:
                raise HostError(f"{name!r} is no name for a certificate: {error}") from error
    return found
