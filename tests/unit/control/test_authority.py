"""The CA in files, and control's own certificate."""

import asyncio
import stat
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from geniehive.kit import tls
from geniehive.kit.errors import UserError
from geniehive.rules.identity import CONTROL_NAME, Peer, PeerKind, relay_name
from geniehive_control.authority import CertificateIssuer, Files, OwnCertificate, open_authority

NOW = 1_700_000_000.0
YEAR = 365 * 86400.0


def write(folder: Path, certificate: bytes, key: bytes, name: str = "own") -> Files:
    files = Files(folder / f"{name}.pem", folder / f"{name}.key")
    files.certificate.write_bytes(certificate)
    files.key.write_bytes(key)
    return files


def wrong(folder: Path, files: Files | None = None, now: float = NOW) -> str:
    with pytest.raises(UserError) as caught:
        open_authority(folder, files, "c1", now)
    assert "PRIVATE" not in str(caught.value)
    return str(caught.value)


def test_it_is_made_once(tmp_path: Path) -> None:
    made = open_authority(tmp_path, None, "c1", NOW)
    folder = tmp_path / "tls"
    assert sorted(path.name for path in folder.iterdir()) == ["ca.key", "ca.pem"]
    if sys.platform != "win32":
        for path in (folder / "ca.key", folder / "ca.pem"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    again = open_authority(tmp_path, None, "c2", NOW + YEAR)
    assert (again.sha256, again.bundle) == (made.sha256, made.bundle)
    assert "c1" in x509.load_pem_x509_certificate(made.bundle).subject.rfc4514_string()


@pytest.mark.parametrize("lost", ["ca.key", "ca.pem"])
def test_half_of_it_is_not_replaced(lost: str, tmp_path: Path) -> None:
    open_authority(tmp_path, None, "c1", NOW)
    (tmp_path / "tls" / lost).unlink()
    text = wrong(tmp_path)
    assert f"no {lost} beside it" in text
    assert "Restore it" in text
    assert not (tmp_path / "tls" / lost).exists()


def test_one_s_own(tmp_path: Path) -> None:
    pair = tls.make_authority("mine", NOW)
    made = open_authority(tmp_path, write(tmp_path, *pair), "c1", NOW)
    assert made.sha256 == tls.Authority(*pair).sha256
    # It stays where it is.
    assert not (tmp_path / "tls").exists()


def test_files_that_are_none(tmp_path: Path) -> None:
    certificate, key = tls.make_authority("mine", NOW)
    other_certificate, other_key = tls.make_authority("other", NOW)
    authority = tls.Authority(certificate, key)
    leaf_key = tls.new_key()
    leaf = authority.issue(tls.read_csr(tls.make_csr(leaf_key, "x")), "x", now=NOW, seconds=YEAR).chain
    assert "belong together" in wrong(tmp_path, write(tmp_path, certificate, other_key))
    assert "of no CA" in wrong(tmp_path, write(tmp_path, leaf, leaf_key))
    assert "no certificate in PEM" in wrong(tmp_path, write(tmp_path, b"hello", key))
    assert "no unencrypted private key" in wrong(tmp_path, write(tmp_path, certificate, b"hello"))
    assert "No such file" in wrong(tmp_path, Files(tmp_path / "not-there", tmp_path / "own.key"))
    assert "has expired" in wrong(tmp_path, write(tmp_path, other_certificate, other_key), NOW + 21 * YEAR)
    private = serialization.load_pem_private_key(key, None)
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    assert "no unencrypted private key" in wrong(tmp_path, write(tmp_path, certificate, secret))


def test_a_ca_below_another_one_is_refused(tmp_path: Path) -> None:
    root = x509.load_pem_x509_certificate(tls.make_authority("root", NOW)[0])
    root_key = serialization.load_pem_private_key(tls.new_key(), None)
    certificate, key = tls.make_authority("below", NOW)
    below = x509.load_pem_x509_certificate(certificate)
    builder = (
        x509.CertificateBuilder()
        .subject_name(below.subject)
        .issuer_name(root.subject)
        .public_key(below.public_key())
        .serial_number(5)
        .not_valid_before(below.not_valid_before_utc)
        .not_valid_after(below.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )
    signed = builder.sign(root_key, hashes.SHA256())  # type: ignore[arg-type]
    files = write(tmp_path, signed.public_bytes(serialization.Encoding.PEM), key)
    assert "was issued by another CA" in wrong(tmp_path, files)


def test_a_ca_that_ends_soon_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = write(tmp_path, *tls.make_authority("mine", NOW))
    open_authority(tmp_path, files, "c1", NOW + 20 * YEAR - 10 * 86400)
    assert "expires in 10 days" in caplog.text


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "tls").write_text("a file")
    assert "cannot keep a CA" in wrong(tmp_path)


def test_certificates_of_peers() -> None:
    issuer = CertificateIssuer(tls.Authority(*tls.make_authority("mine", NOW)))
    csr = tls.make_csr(tls.new_key(), "anything").decode()
    for kind, dns in ((PeerKind.NODE, (relay_name("c1", "gpu-1"),)), (PeerKind.GATEWAY, ())):
        peer = Peer("c1", kind, "gpu-1")
        made = issuer.issue(issuer.read(csr), peer, NOW, 60.0)
        seen = tls.read_certificate(made.chain)
        assert (seen.uris, seen.dns, seen.not_after) == ((peer.uri,), dns, NOW + 60)
        assert made.chain.endswith(issuer.bundle)
        # Of the request only the key is taken.
        assert "anything" not in x509.load_pem_x509_certificate(made.chain).subject.rfc4514_string()
    with pytest.raises(ValueError, match="no certificate request"):
        issuer.read("x")


class Clock:
    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time


async def test_control_s_own_is_renewed_in_good_time() -> None:
    clock = Clock()
    own = OwnCertificate(tls.Authority(*tls.make_authority("mine", NOW)), clock, 0.06)
    first = own.pair
    key, chain = first
    assert tls.fits(chain, key, own.bundle)
    seen = tls.read_certificate(chain)
    assert (seen.dns, seen.uris) == ((CONTROL_NAME,), ())
    keeping = asyncio.create_task(own.keep())
    async with asyncio.timeout(5.0):
        # As long as the clock stands still nothing is due.
        for _ in range(5):
            await asyncio.sleep(0.02)
        assert own.pair is first
        clock.time += 0.021
        while own.pair is first:
            await asyncio.sleep(0.005)
    keeping.cancel()
    assert tls.fits(own.pair[1], own.pair[0], own.bundle)
    assert own.pair[0] != key
