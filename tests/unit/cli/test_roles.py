"""`geniehive roles` and `geniehive alias`: what they send, what they print, how they fail."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from geniehive import catalogue
from geniehive.cli.__main__ import main
from geniehive.failures import Refused
from geniehive.kit.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from geniehive.v1 import admin_service_pb2 as pb
from geniehive.v1 import failure_pb2, registry_service_pb2, request_pb2, role_pb2
from tests.support.fake_control import FakeControl

Capture = pytest.CaptureFixture[str]

ONE = "role_id: coder\noperation: chat\nrequest_policy:\n  defaults: {temperature: 0.2}\n"
WHOLE = """
roles:
  - {role_id: coder, operation: chat, routing_policy: {fallback_role_ids: [helper]}}
  - {role_id: helper, operation: chat}
aliases:
  claude-*: coder
"""


def coder() -> role_pb2.Role:
    return role_pb2.Role(
        role_id="coder",
        display_name="Coder",
        operation=request_pb2.OPERATION_CHAT,
        request_policy=request_pb2.RequestPolicy(defaults_json='{"temperature": 0.2}'),
        routing_policy=role_pb2.RoutingPolicy(preferred_families=["a", "b"], fallback_role_ids=["helper"]),
        owner=role_pb2.OWNER_API,
        etag="e1",
    )


def fill(control: FakeControl) -> None:
    listed = [
        role_pb2.Alias(alias="claude-*", target="coder", owner=role_pb2.OWNER_FILE),
        role_pb2.Alias(alias="gpt-oss-20b", target="gpt-oss:20b", owner=role_pb2.OWNER_FOUND, etag="f"),
        role_pb2.Alias(alias="gpt-4o", target="coder", owner=role_pb2.OWNER_API, etag="e2"),
    ]
    control.answers = {
        "ListRoles": registry_service_pb2.ListRolesResponse(roles=[coder()]),
        "GetRole": registry_service_pb2.GetRoleResponse(role=coder()),
        "ListAliases": registry_service_pb2.ListAliasesResponse(aliases=listed),
        "CreateRole": lambda request: pb.CreateRoleResponse(role=request.role),
        "UpdateRole": lambda request: pb.UpdateRoleResponse(role=request.role),
        "SetAlias": lambda request: pb.SetAliasResponse(alias=request.alias),
    }


def sent(control: FakeControl, kind: type[Any]) -> list[Any]:
    return [request for request in control.requests if isinstance(request, kind)]


def test_list(control: FakeControl, capsys: Capture) -> None:
    fill(control)
    assert main(["roles", "list"]) == EXIT_OK
    header, line = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "ID"
    assert line.split() == ["coder", "chat", "a,", "b", "helper", "operator", "Coder"]
    assert main(["roles", "list", "--json"]) == EXIT_OK
    [shown] = json.loads(capsys.readouterr().out)["roles"]
    assert (shown["role_id"], shown["owner"], shown["etag"]) == ("coder", "api", "e1")
    control.answers["ListRoles"] = registry_service_pb2.ListRolesResponse()
    assert main(["roles", "list"]) == EXIT_OK
    assert "geniehive roles create" in capsys.readouterr().out


def test_show_is_what_create_takes(control: FakeControl, capsys: Capture) -> None:
    fill(control)
    assert main(["roles", "show", "coder"]) == EXIT_OK
    text = capsys.readouterr().out
    assert text.startswith("# owner: operator; etag: e1\n")
    assert catalogue.parse_role(text, "shown").display_name == "Coder"
    assert main(["roles", "show", "coder", "--json"]) == EXIT_OK
    assert json.loads(capsys.readouterr().out)["request_policy"]["defaults"] == {"temperature": 0.2}


def test_create_one(control: FakeControl, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(control)
    file = tmp_path / "role.yaml"
    file.write_text(ONE)
    assert main(["roles", "create", "-f", str(file)]) == EXIT_OK
    assert capsys.readouterr().out == "created coder\n"
    [request] = sent(control, pb.CreateRoleRequest)
    assert request.role.request_policy.defaults_json == '{"temperature": 0.2}'
    monkeypatch.setattr("sys.stdin", io.StringIO(ONE))
    assert main(["roles", "create", "-f", "-", "--json"]) == EXIT_OK
    assert json.loads(capsys.readouterr().out) == {"created": ["coder"], "aliases": []}


def test_create_a_whole_catalogue(control: FakeControl, capsys: Capture, tmp_path: Path) -> None:
    fill(control)
    file = tmp_path / "roles.yaml"
    file.write_text(WHOLE)
    assert main(["roles", "create", "-f", str(file)]) == EXIT_OK
    assert capsys.readouterr().out == "created helper, coder; aliases claude-*\n"
    assert [request.role.role_id for request in sent(control, pb.CreateRoleRequest)] == ["helper", "coder"]
    control.answers["SetAlias"] = Refused(failure_pb2.FAILURE_REASON_ETAG_STALE, "it is there")
    assert main(["roles", "create", "-f", str(file)]) == EXIT_FAILED
    told = capsys.readouterr().err
    assert "what was made before this failed stays: helper, coder" in told
    assert "it is there" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("role_id: a\noperation: x\n", "line 2: operation: "),
        ("roles:\n- role_id: a\n", "line 2: roles[0]: object missing"),
        ("", "there is no role in it"),
        (None, "cannot read"),
    ],
)
def test_a_file_that_is_none(
    control: FakeControl, capsys: Capture, tmp_path: Path, text: str | None, told: str
) -> None:
    file = tmp_path / "role.yaml"
    if text is not None:
        file.write_text(text)
    assert main(["roles", "create", "-f", str(file)]) == EXIT_USAGE
    assert told in capsys.readouterr().err
    assert control.requests == []


def test_update_by_fields(control: FakeControl, capsys: Capture) -> None:
    fill(control)
    sets = (
        "routing_policy.strategy=least_loaded",
        "request_policy.defaults.num_ctx=4096",
        "display_name=null",
        "routing_policy.preferred_families=[c]",
    )
    assert main(["roles", "update", "coder", *(word for text in sets for word in ("--set", text))]) == EXIT_OK
    assert capsys.readouterr().out == "updated coder\n"
    [request] = sent(control, pb.UpdateRoleRequest)
    assert (request.role.etag, list(request.update_mask.paths)) == ("e1", ["*"])
    assert request.role.routing_policy.strategy == request_pb2.STRATEGY_LEAST_LOADED
    assert request.role.routing_policy.preferred_families == ["c"]
    assert request.role.routing_policy.fallback_role_ids == ["helper"]
    assert json.loads(request.role.request_policy.defaults_json) == {"temperature": 0.2, "num_ctx": 4096}
    assert request.role.display_name == ""


def test_update_by_a_file(control: FakeControl, capsys: Capture, tmp_path: Path) -> None:
    fill(control)
    file = tmp_path / "role.yaml"
    file.write_text(ONE)
    assert main(["roles", "update", "coder", "-f", str(file), "--etag", "e9", "--json"]) == EXIT_OK
    assert json.loads(capsys.readouterr().out)["role_id"] == "coder"
    [request] = sent(control, pb.UpdateRoleRequest)
    assert (request.role.etag, request.role.display_name) == ("e9", "")
    assert main(["roles", "update", "other", "-f", str(file)]) == EXIT_USAGE
    assert "must have role 'other' and nothing else" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give either"),
        (("--set", "display_name"), "expected FIELD=VALUE"),
        (("--set", "routing_policy.strategy=fastest"), "routing_policy.strategy: invalid enum value 'fastest'; "),
        (("--set", "colour=red"), "unknown key 'colour'"),
        (("--set", "display_name.x=1"), "display_name has no fields"),
        (("--set", "display_name=[", ), "not valid YAML"),
    ],
)  # fmt: skip
def test_updates_that_say_nothing(control: FakeControl, capsys: Capture, arguments: tuple[str, ...], told: str) -> None:
    fill(control)
    assert main(["roles", "update", "coder", *arguments]) == EXIT_USAGE
    assert told in capsys.readouterr().err
    assert not sent(control, pb.UpdateRoleRequest)


def test_delete(control: FakeControl, capsys: Capture) -> None:
    fill(control)
    assert main(["roles", "delete", "coder", "--etag", "e1"]) == EXIT_OK
    assert main(["roles", "delete", "coder", "--json"]) == EXIT_OK
    assert [(r.role_id, r.etag) for r in sent(control, pb.DeleteRoleRequest)] == [("coder", "e1"), ("coder", "")]
    assert capsys.readouterr().out.startswith("deleted coder\n{")
    error = Refused(failure_pb2.FAILURE_REASON_STILL_REFERENCED, "alias x points at role 'coder'; change that first")
    control.answers["DeleteRole"] = error
    assert main(["roles", "delete", "coder"]) == EXIT_FAILED
    assert "change that first" in capsys.readouterr().err


def test_export(control: FakeControl, capsys: Capture) -> None:
    fill(control)
    assert main(["roles", "export"]) == EXIT_OK
    found = catalogue.parse(capsys.readouterr().out, "exported")
    assert [role.role_id for role in found.roles] == ["coder"]
    # Not what control found by itself.
    assert {alias.alias for alias in found.aliases} == {"claude-*", "gpt-4o"}
    assert main(["roles", "export", "--json"]) == EXIT_OK
    assert json.loads(capsys.readouterr().out)["aliases"] == {"claude-*": "coder", "gpt-4o": "coder"}


def test_a_role_of_a_newer_version(control: FakeControl, capsys: Capture) -> None:
    newer = role_pb2.Role(role_id="new", operation=99)  # type: ignore[arg-type]
    control.answers = {"GetRole": registry_service_pb2.GetRoleResponse(role=newer)}
    assert main(["roles", "show", "new"]) == EXIT_USAGE
    assert "this version does not know" in capsys.readouterr().err


def test_alias_set(control: FakeControl, capsys: Capture) -> None:
    fill(control)
    assert main(["alias", "set", "new", "coder"]) == EXIT_OK
    assert main(["alias", "set", "gpt-4o", "helper"]) == EXIT_OK
    # One that control found gives way.
    assert main(["alias", "set", "gpt-oss-20b", "coder", "--json"]) == EXIT_OK
    assert [(r.alias.alias, r.alias.target, r.alias.etag) for r in sent(control, pb.SetAliasRequest)] == [
        ("new", "coder", ""),
        ("gpt-4o", "helper", "e2"),
        ("gpt-oss-20b", "coder", ""),
    ]
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["new means coder", "gpt-4o means helper, and no longer coder"]


def test_alias_list_and_delete(control: FakeControl, capsys: Capture) -> None:
    fill(control)
    assert main(["alias", "list"]) == EXIT_OK
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1:] == [
        ["claude-*", "coder", "file"],
        ["gpt-oss-20b", "gpt-oss:20b", "found"],
        ["gpt-4o", "coder", "operator"],
    ]
    assert main(["alias", "list", "--json"]) == EXIT_OK
    assert len(json.loads(capsys.readouterr().out)["aliases"]) == 3
    assert main(["alias", "delete", "gpt-4o"]) == EXIT_OK
    assert main(["alias", "delete", "gpt-4o", "--json"]) == EXIT_OK
    assert [request.alias for request in sent(control, pb.DeleteAliasRequest)] == ["gpt-4o", "gpt-4o"]
    control.answers["ListAliases"] = registry_service_pb2.ListAliasesResponse()
    capsys.readouterr()
    assert main(["alias", "list"]) == EXIT_OK
    assert "no aliases" in capsys.readouterr().out
