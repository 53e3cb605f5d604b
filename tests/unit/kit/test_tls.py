import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from geniehive.kit import tls

NOW = time.time()
DAY = 86400.0


@pytest.fixture(scope="module")
def made() -> tuple[bytes, bytes]:
    return tls.make_authority("GenieHive test", NOW)


@pytest.fixture(scope="module")
def authority(made: tuple[bytes, bytes]) -> tls.Authority:
    return tls.Authority(*made)


def issue(authority: tls.Authority, key: bytes, seconds: float = 30 * DAY) -> tls.Issued:
    public = tls.read_csr(tls.make_csr(key, "node h"))
    return authority.issue(public, "node h", now=NOW, seconds=seconds, uris=["spiffe://c/node/h"], dns=["h.example"])


def test_a_certificate_says_what_it_was_issued_for(authority: tls.Authority) -> None:
    issued = issue(authority, tls.new_key())
    seen = tls.read_certificate(issued.chain)
    assert seen.serial == issued.serial == seen.serial.lower()
    assert (seen.uris, seen.dns) == (("spiffe://c/node/h",), ("h.example",))
    assert seen.not_before == pytest.approx(NOW - tls.BACKDATED, abs=1)
    assert seen.not_after == issued.not_after == pytest.approx(NOW + 30 * DAY, abs=1)
    assert issued.chain.count(b"BEGIN CERTIFICATE") == 2


def test_none_outlives_its_ca(authority: tls.Authority) -> None:
    assert issue(authority, tls.new_key(), 100 * 365 * DAY).not_after <= authority.not_after


def test_fits_only_its_key_and_its_ca(authority: tls.Authority) -> None:
    key = tls.new_key()
    chain = issue(authority, key).chain
    other = tls.Authority(*tls.make_authority("other", NOW))
    assert tls.fits(chain, key, authority.bundle)
    assert tls.fits(chain, key, other.bundle + authority.bundle)
    assert not tls.fits(chain, tls.new_key(), authority.bundle)
    assert not tls.fits(chain, key, other.bundle)
    for broken in (b"", b"nonsense", chain[:200]):
        assert not tls.fits(broken, key, authority.bundle)
        assert not tls.fits(chain, broken, authority.bundle)
        assert not tls.fits(chain, key, broken)


def test_a_ca_of_the_same_name_does_not_pass_for_it(authority: tls.Authority) -> None:
    key = tls.new_key()
    impostor = tls.Authority(*tls.make_authority("GenieHive test", NOW))
    assert not tls.fits(issue(impostor, key).chain, key, authority.bundle)


def csr(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


def altered() -> bytes:
    """Signed by another key than the one it is for."""
    request = x509.load_pem_x509_csr(csr(ec.generate_private_key(ec.SECP256R1())))
    der = bytearray(request.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("pem", "words"),
    [
        (b"", "no certificate request"),
        (b"nonsense", "no certificate request"),
        (b"x" * 20_000, "longer than"),
        (csr(ec.generate_private_key(ec.SECP192R1())), "too weak"),
        (csr(rsa.generate_private_key(65537, 1024)), "too weak"),
        (altered(), "not signed by the key"),
    ],
)
def test_requests_that_are_refused(pem: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tls.read_csr(pem)


def test_rsa_is_taken() -> None:
    assert isinstance(tls.read_csr(csr(rsa.generate_private_key(65537, 2048))), rsa.RSAPublicKey)


def test_what_makes_no_ca(made: tuple[bytes, bytes], authority: tls.Authority) -> None:
    certificate, key = made
    leaf_key = tls.new_key()
    for given, words in (
        ((b"nonsense", key), "no certificate"),
        ((certificate, b"nonsense"), "no unencrypted private key"),
        ((certificate, tls.new_key()), "do not belong together"),
        ((issue(authority, leaf_key).chain, leaf_key), "of no CA"),
    ):
        with pytest.raises(ValueError, match=words):
            tls.Authority(*given)


def test_no_key_is_shown(authority: tls.Authority) -> None:
    assert "KEY" not in repr(authority)


def test_the_digest_by_which_a_ca_is_known(made: tuple[bytes, bytes], authority: tls.Authority) -> None:
    der = x509.load_pem_x509_certificate(made[0]).public_bytes(serialization.Encoding.DER)
    assert authority.sha256 == tls.sha256(der)
    assert tls.to_pem(der) == authority.bundle
