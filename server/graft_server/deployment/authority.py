"""A deployment's own certificate authority for its server and its devices."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from graft.core.files import replace_file
from graft.errors import RunError
from graft.wire.messages.snapshot import key_expires_s

MAX_COMMON_NAME = 64  # X.509's own bound
_AUTHORITY_DAYS = 3650
_CERTIFICATE_DAYS = 825  # what TLS stacks still accept of a server
_CLOCK_SKEW = timedelta(days=1)  # a device's clock may lag


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """A private key and its certificate, both PEM."""

    key_pem: bytes
    certificate_pem: bytes

    def write(self, folder: Path) -> None:
        """As ``tls.key``, for its owner alone, and ``tls.pem``."""
        replace_file(folder / "tls.key", self.key_pem, mode=0o600)
        replace_file(folder / "tls.pem", self.certificate_pem)


class Authority:
    """Signs the certificates of one deployment. Its key stays in its folder."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate

    @property
    def certificate_pem(self) -> bytes:
        """What everyone trusts."""
        return self._certificate.public_bytes(Encoding.PEM)

    def server_identity(self, hosts: Sequence[str]) -> Identity:
        """A certificate for a server that is called by any of ``hosts``, names or addresses."""
        names = [_general_name(host) for host in hosts]
        # Its own commands ask the depot how it is, and show this certificate there.
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._issue(hosts[0][:MAX_COMMON_NAME], usages, x509.SubjectAlternativeName(names))

    def device_identity(self, domain_id: str) -> Identity:
        """A certificate by which a device shows the depot which domain it is."""
        return self._issue(domain_id, [ExtendedKeyUsageOID.CLIENT_AUTH])

    def _issue(
        self, name: str, usages: Sequence[x509.ObjectIdentifier], *extensions: x509.ExtensionType
    ) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, key, self._certificate.subject, _CERTIFICATE_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(_key_usage(digital_signature=True), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Identity(
            key_pem=_private_pem(key), certificate_pem=certificate.public_bytes(Encoding.PEM)
        )


def create_authority(folder: Path) -> Authority:
    """A new authority, stored as ``ca.key`` (readable by its owner alone) and ``ca.pem``.

    Raises RunError where the folder has one.
    """
    if (folder / "ca.key").exists():
        raise RunError(f"{folder / 'ca.key'}: there is an authority already")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name("graft deployment")
    certificate = (
        _builder("graft deployment", key, subject, _AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    replace_file(folder / "ca.key", _private_pem(key), mode=0o600)
    replace_file(folder / "ca.pem", certificate.public_bytes(Encoding.PEM))
    return Authority(key, certificate)


def open_authority(folder: Path) -> Authority:
    """The authority in ``folder``; raises RunError where there is none."""
    try:
        key = load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"authority {folder}: got {error}, wanted ca.key and ca.pem") from error
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Authority(key, certificate)


def node_keys() -> tuple[bytes, bytes]:
    """A new private and public key in OpenSSH's formats, as Flower's node authentication asks."""
    key = ec.generate_private_key(ec.SECP384R1())
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
    )


def _builder(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Name, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(**uses: bool) -> x509.KeyUsage:
    """What a key may do, which strict verification (Python 3.13's default) asks of every CA."""
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: uses.get(name, False) for name in names})


def certificate_ends(server: Path) -> dict[str, datetime]:
    """When what a server's folder has ends: certificates ("ca", "server", enrolled devices), and
    the server's "signing key"."""
    paths = {"ca": server / "ca.pem", "server": server / "tls.pem"}
    paths |= {path.stem: path for path in sorted((server / "nodes").glob("*.pem"))}
    ends = {
        name: x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
        for name, path in paths.items()
        if path.exists()
    }
    for record in server.glob("runs/*/keys/server.record"):  # one run a deployment
        ends["signing key"] = datetime.fromtimestamp(key_expires_s(record.read_bytes()), UTC)
    return ends


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
