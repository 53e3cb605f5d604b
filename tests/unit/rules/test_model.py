import ast
from pathlib import Path

import msgspec
import pytest

from geniehive.rules import model as m
from geniehive.rules.operations import Operation


def test_an_asset_has_its_services_operations_unless_it_has_its_own() -> None:
    narrow = m.Asset(asset_id="e", upstream_name="e", operations=(Operation.EMBEDDINGS,))
    plain = m.Asset(asset_id="c", upstream_name="c")
    service = m.Service(service="h/s", operations=(Operation.CHAT, Operation.COMPLETIONS), assets=(narrow, plain))
    assert service.operations_of(narrow) == (Operation.EMBEDDINGS,)
    assert service.operations_of(plain) == (Operation.CHAT, Operation.COMPLETIONS)


def test_values_are_equal_when_their_fields_are_and_never_change() -> None:
    one, two = m.Relay(host_id="h", base_urls=("u",)), m.Relay(host_id="h", base_urls=("u",))
    assert one == two
    with pytest.raises(AttributeError):
        one.host_id = "x"  # type: ignore[misc]


def test_values_survive_storing_as_json() -> None:
    service = m.Service(
        service="h/s",
        operations=(Operation.CHAT,),
        assets=(m.Asset(asset_id="a", upstream_name="a", context_tokens=0, load_state=m.LoadState.LOADED),),
        ways=(m.Way(direct_url="http://127.0.0.1:1", same_host_only=True), m.Way()),
        accept_requests=False,
    )
    assert msgspec.json.decode(msgspec.json.encode(service), type=m.Service) == service


def test_what_a_newer_version_stored_can_be_read() -> None:
    assert msgspec.json.decode(b'{"host_id": "h", "of_tomorrow": 1}', type=m.Host) == m.Host(host_id="h")


def test_scopes_as_people_write_them() -> None:
    assert [scope.word for scope in m.Scope] == ["infer", "read", "operate", "admin"]


@pytest.mark.parametrize("module", ["__init__", "model", "names", "operations"])
def test_rules_are_pure(module: str, root: Path) -> None:
    """What every core may import can itself import nothing that a core may not."""
    allowed = {"collections", "dataclasses", "enum", "re", "typing", "msgspec", "geniehive"}
    tree = ast.parse((root / "geniehive" / "rules" / f"{module}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported = [node.module or ""]
        else:
            continue
        for name in imported:
            assert name.partition(".")[0] in allowed
            assert not name.startswith("geniehive") or name.startswith("geniehive.rules")
