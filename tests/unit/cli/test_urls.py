"""The gateway's URLs."""

import time
from pathlib import Path

import pytest

from geniehive.cli import urls
from geniehive.cli.urls import Urls
from geniehive.kit import machine, tls
from geniehive.kit.errors import UserError
from tests.support.tls_control import issue


@pytest.mark.parametrize(
    ("listen", "advertise", "people", "elsewhere"),
    [
        ("127.0.0.1:1", None, "http://127.0.0.1:1", None),
        ("127.0.0.1:1", "gpu.example", "http://127.0.0.1:1", None),
        ("0.0.0.0:1", None, "http://127.0.0.1:1", "http://192.0.2.1:1"),
        ("[::]:1", "2001:db8::1", "http://[::1]:1", "http://[2001:db8::1]:1"),
        ("192.0.2.5:1", None, "http://192.0.2.5:1", "http://192.0.2.5:1"),
    ],
)
def test_who_reaches_it_how(
    listen: str, advertise: str | None, people: str, elsewhere: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "addresses", lambda: ["192.0.2.1", "192.0.2.2"])
    found = Urls.of(listen, None, advertise)
    assert (found.local, found.people, found.elsewhere, found.trusting) == (people, people, elsewhere, None)


def test_a_machine_that_nobody_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "addresses", lambda: [])
    assert Urls.of("0.0.0.0:1", None, None).elsewhere is None


def test_by_the_name_that_its_certificate_is_for(tmp_path: Path) -> None:
    authority = tls.Authority(*tls.make_authority("mine", time.time()))
    (tmp_path / "c.pem").write_bytes(issue(authority, "gpu.example")[0])
    found = Urls.of("0.0.0.0:1", str(tmp_path / "c.pem"), None)
    assert (found.local, found.people) == ("https://127.0.0.1:1", "https://gpu.example:1")
    assert found.elsewhere == "https://gpu.example:1"
    assert found.trusting is not None
    (tmp_path / "wild.pem").write_bytes(issue(authority, "*.example")[0])
    assert Urls.of("127.0.0.1:1", str(tmp_path / "wild.pem"), None).people == "https://127.0.0.1:1"


def test_a_certificate_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--cert: cannot use"):
        urls._look_into(tmp_path / "none")
