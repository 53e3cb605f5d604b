import platform
import uuid
from pathlib import Path

import pytest

from geniehive.kit import machine


@pytest.fixture
def no_id_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: Path, *arguments: object, **more: object) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", missing)


def test_a_name_always(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.host_name() == platform.node()
    monkeypatch.setattr(platform, "node", lambda: "")
    assert machine.host_name() == "localhost"


def test_a_fingerprint_is_stable_and_hides_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "0123abcd\n")
    made = machine.fingerprint()
    assert made is not None
    assert made == machine.fingerprint()
    assert len(made) == 32
    assert "0123abcd" not in made
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "another\n")
    assert machine.fingerprint() != made


@pytest.mark.usefixtures("no_id_file")
def test_without_an_id_file_the_network_card_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uuid, "getnode", lambda: 0x02_00_00_00_00_01)
    one = machine.fingerprint()
    monkeypatch.setattr(uuid, "getnode", lambda: 0x02_00_00_00_00_02)
    assert one is not None
    assert machine.fingerprint() not in (None, one)


@pytest.mark.usefixtures("no_id_file")
def test_a_made_up_number_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uuid, "getnode", lambda: 1 << 40)
    assert machine.fingerprint() is None
