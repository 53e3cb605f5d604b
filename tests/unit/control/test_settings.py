"""Settings say nothing of what they hide, and refuse what makes no sense."""

import socket
from pathlib import Path

import pytest
import yaml

from geniehive.kit import config
from geniehive.kit.errors import UserError
from geniehive.rules.model import Scope
from geniehive_control.app import _check_listeners, _intervals, _keys
from geniehive_control.rpc.auth import Required, digest
from geniehive_control.settings import AuthSettings, ControlSettings, TlsSettings


def load(*overrides: str) -> ControlSettings:
    return config.load(ControlSettings, prefix="GENIEHIVE_CONTROL", overrides=overrides)


def test_the_full_file_is_the_defaults(root: Path) -> None:
    file = root / "configs/control.full.yaml"
    assert config.load(ControlSettings, prefix="X", file=file) == ControlSettings()
    written = yaml.safe_load(file.read_text())
    assert set(written) == set(ControlSettings.__struct_fields__)
    assert set(written["auth"]) == set(AuthSettings.__struct_fields__)
    assert set(written["tls"]) == set(TlsSettings.__struct_fields__)


def test_secrets_are_not_shown() -> None:
    settings = load(
        "auth.client_keys=[{name: a, key: hidden, scopes: [read]}]",
        "auth.node_keys=[{key: hidden}]",
        "database_url=postgresql://u:hidden@h/d",
    )
    assert "hidden" not in repr(settings)
    assert "hidden" not in repr(settings.auth)
    assert settings.auth.client_keys is not None
    assert settings.auth.node_keys is not None
    assert "hidden" not in repr(settings.auth.client_keys + list(settings.auth.node_keys))


@pytest.mark.parametrize(
    "override",
    ["lease_ttl=0", "restart_grace=-1", "stop_grace=0", "heartbeat_interval=0", "auth.client_keys=[{name: a}]", "x=1"],
)
def test_wrong_values(override: str) -> None:
    with pytest.raises(UserError):
        load(override)


def test_intervals() -> None:
    assert _intervals(load("lease_ttl=3")).heartbeat == pytest.approx(1.0)
    assert _intervals(load("heartbeat_interval=0.5")).heartbeat == 0.5
    with pytest.raises(UserError, match="must be less than lease_ttl"):
        _intervals(load("heartbeat_interval=2.5"))


def test_local_secrets_by_default(tmp_path: Path) -> None:
    configured, required = _keys(AuthSettings(), tmp_path)
    assert [(key.key_id, key.scopes) for key in configured] == [
        ("local-admin", (Scope.ADMIN,)),
        ("local-client", (Scope.INFER, Scope.READ)),
    ]
    assert configured[0].sha256 == digest((tmp_path / "admin.key").read_text().strip())
    assert required.node_keys == (digest((tmp_path / "node.key").read_text().strip()),)
    assert (required.clients, required.nodes) == (True, True)


def test_keys_from_settings_files_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("from-file\n")
    monkeypatch.setenv("SOME_KEY", "from-env")
    auth = load(
        f"auth.client_keys=[{{name: a, key_file: {tmp_path / 'key'}, scopes: [admin, read, read]}}]",
        "auth.node_keys=[{key_env: SOME_KEY}, {key: given}]",
    ).auth
    configured, required = _keys(auth, tmp_path)
    assert [(key.key_id, key.sha256, key.scopes) for key in configured] == [
        ("a", digest("from-file"), (Scope.READ, Scope.ADMIN))
    ]
    assert required.node_keys == (digest("from-env"), digest("given"))
    assert not (tmp_path / "admin.key").exists()


@pytest.mark.parametrize(
    ("auth", "text"),
    [
        ("client_keys=[{name: a, scopes: [read]}]", "exactly one of"),
        ("client_keys=[{name: a, key: x, key_env: Y, scopes: [read]}]", "exactly one of"),
        ("client_keys=[{name: a, key_env: NOT_THERE, scopes: [read]}]", "NOT_THERE"),
        ("client_keys=[{name: a, key_file: /not/there, scopes: [read]}]", "/not/there"),
        ("client_keys=[{name: a, key: 'x y', scopes: [read]}]", "white space"),
        ("client_keys=[{name: 'A B', key: x, scopes: [read]}]", "is no name"),
        ("client_keys=[{name: a, key: x, scopes: [read]}, {name: a, key: y, scopes: [read]}]", "same name"),
        ("client_keys=[{name: a, key: x, scopes: [read]}, {name: b, key: x, scopes: [read]}]", "same key"),
        ("node_keys=[{}]", "exactly one of"),
    ],
)
def test_wrong_keys(auth: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=text):
        _keys(load(f"auth.{auth}").auth, tmp_path)


@pytest.mark.parametrize(
    ("overrides", "clients", "nodes"),
    [
        (["auth.require=false"], False, False),
        (["auth.client_keys=[]"], False, True),
        (["auth.node_keys=[]"], True, False),
    ],
)
def test_authentication_off_on_this_machine_only(
    overrides: list[str], clients: bool, nodes: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load("listen=127.0.0.1:0", *overrides)
    _, required = _keys(settings.auth, tmp_path)
    assert (required.clients, required.nodes) == (clients, nodes)
    _check_listeners(settings, required)
    assert "is off" in caplog.text
    settings = load("listen=127.0.0.1:0", "tls.listen=127.0.0.1:0", *overrides)
    with pytest.raises(UserError, match=r"authentication is off .* Leave tls\.listen out"):
        _check_listeners(settings, required)


def wrong(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        _check_listeners(load("listen=127.0.0.1:0", *overrides), Required())
    return str(caught.value)


@pytest.mark.parametrize("listen", ["0.0.0.0:8801", "'[::]:0'", "192.0.2.1:1", "some.name:1"])
def test_plain_text_is_for_loopback(listen: str) -> None:
    assert "set tls.listen" in wrong(f"listen={listen}")


def test_listeners_for_other_machines() -> None:
    _check_listeners(load("listen=127.0.0.1:0", "tls.listen=0.0.0.0:0", "tls.peers_port=0"), Required())
    assert "both 8804" in wrong("tls.listen=127.0.0.1:8804", "tls.peers_port=8804")
    assert "belong together" in wrong("tls.listen=127.0.0.1:0", "tls.ca_cert=x")
    assert "'a:b'" in wrong("tls.listen=127.0.0.1:0", "tls.advertise=['a:b']")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert "--set tls.listen=HOST:PORT" in wrong(f"tls.listen=127.0.0.1:{port}")
        assert "--set tls.peers_port=PORT" in wrong("tls.listen=127.0.0.1:0", f"tls.peers_port={port}")
