"""Keys and certificates: making, issuing, reading. Knows X.509, and nothing of who holds what.

All keys made here are ECDSA on P-256. Certificates begin before they were made, since clocks of machines that never
met differ by hours. What is private is PKCS#8 in PEM, unencrypted: the file's owner alone may read it.
"""

import hashlib
import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# How wrong a clock may be, in seconds.
BACKDATED = 2 * 86400.0
_CA_SECONDS = 20 * 365 * 86400.0
_LONGEST_CSR = 16 * 1024

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class Seen(NamedTuple):
    """What a certificate says. serial: hexadecimal, lower case. Times: seconds since the epoch."""

    serial: str
    not_before: float
    not_after: float
    uris: tuple[str, ...]
    dns: tuple[str, ...]


class Issued(NamedTuple):
    """chain: PEM, leaf first, the CA's certificate last."""

    chain: bytes
    serial: str
    not_after: float


def new_key() -> bytes:
    return _private_pem(ec.generate_private_key(ec.SECP256R1()))


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_csr(key: bytes, common_name: str) -> bytes:
    """A request, in PEM, for a certificate of this private key. The name is for people."""
    private = serialization.load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(common_name))
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read_csr(pem: bytes) -> PublicKey:
    """The public key that a request is for, and whose holder signed it. ValueError, in words, for all else."""
    if len(pem) > _LONGEST_CSR:
        raise ValueError(f"is longer than {_LONGEST_CSR} bytes")
    try:
        request = x509.load_pem_x509_csr(pem)
        key = request.public_key()
        valid = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise ValueError("is no certificate request in PEM") from error
    if not valid:
        raise ValueError("is not signed by the key that it is for")
    if isinstance(key, ec.EllipticCurvePublicKey) and key.key_size >= 256:
        return key
    if isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 8192:
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise ValueError("is for a key that is too weak, or of an unknown kind; use ECDSA on P-256")


def read_certificate(pem: bytes) -> Seen:
    """Of the first certificate in `pem`. ValueError if there is none."""
    found = x509.load_pem_x509_certificate(pem)
    uris: list[str] = []
    dns: list[str] = []
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        dns = names.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        pass
    return Seen(
        _serial(found),
        found.not_valid_before_utc.timestamp(),
        found.not_valid_after_utc.timestamp(),
        tuple(uris),
        tuple(dns),
    )


def fits(chain: bytes, key: bytes, ca_bundle: bytes) -> bool:
    """Whether the first certificate of `chain` is for `key`, and signed by one of `ca_bundle`."""
    try:
        leaf = x509.load_pem_x509_certificate(chain)
        private = serialization.load_pem_private_key(key, None)
        if leaf.public_key() != private.public_key():
            return False
        authorities = x509.load_pem_x509_certificates(ca_bundle)
    except (ValueError, UnsupportedAlgorithm):
        return False
    return any(_is_issued_by(leaf, authority) for authority in authorities)


def _is_issued_by(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def sha256(der: bytes) -> bytes:
    """By which a certificate in DER is known."""
    return hashlib.sha256(der).digest()


def to_pem(der: bytes) -> bytes:
    """ValueError if it is no certificate."""
    return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)


def make_authority(name: str, now: float) -> tuple[bytes, bytes]:
    """A new CA: its certificate and its private key, in PEM. now: seconds since the epoch."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    public = key.public_key()
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        _builder(subject, public, now, _CA_SECONDS)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM), _private_pem(key)


class Authority:
    """Issues certificates. ValueError, in words, if certificate and key in PEM make no CA."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        try:
            self._certificate = x509.load_pem_x509_certificate(certificate)
        except ValueError as error:
            raise ValueError("is no certificate in PEM") from error
        try:
            private = serialization.load_pem_private_key(key, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ValueError("its key is no unencrypted private key in PEM") from error
        if not isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise ValueError("its key must be ECDSA or RSA")
        if private.public_key() != self._certificate.public_key():
            raise ValueError("certificate and key do not belong together")
        try:
            constraints = self._certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        except x509.ExtensionNotFound:
            constraints = x509.BasicConstraints(ca=False, path_length=None)
        if not constraints.ca:
            raise ValueError("is the certificate of no CA")
        self._key = private
        self.bundle = self._certificate.public_bytes(serialization.Encoding.PEM)
        self.sha256 = sha256(self._certificate.public_bytes(serialization.Encoding.DER))
        self.not_after = self._certificate.not_valid_after_utc.timestamp()

    def __repr__(self) -> str:
        return f"Authority({self.sha256.hex()[:16]}...)"

    def issue(
        self,
        key: PublicKey,
        common_name: str,
        *,
        now: float,
        seconds: float,
        uris: Sequence[str] = (),
        dns: Sequence[str] = (),
        ips: Sequence[str] = (),
    ) -> Issued:
        """A certificate by which the holder of `key` can be server and client for so long, the CA's life permitting."""
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.DNSName(name) for name in dns]
        names += [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips]
        seconds = max(1.0, min(seconds, self.not_after - now))
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        made = (
            _builder(_name(common_name), key, now, seconds)
            .issuer_name(self._certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(self._identifier(), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        chain = made.public_bytes(serialization.Encoding.PEM) + self.bundle
        return Issued(chain, _serial(made), made.not_valid_after_utc.timestamp())

    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        try:
            found = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _builder(subject: x509.Name, key: PublicKey, now: float, seconds: float) -> x509.CertificateBuilder:
    moment = datetime.fromtimestamp(now, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - timedelta(seconds=BACKDATED))
        .not_valid_after(moment + timedelta(seconds=seconds))
    )


def _serial(certificate: x509.Certificate) -> str:
    return f"{certificate.serial_number:x}"
