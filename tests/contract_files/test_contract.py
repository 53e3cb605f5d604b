"""The contract's files: linted, explained, and in step with what is generated and written from them."""

import re
import subprocess
import sys
from enum import IntEnum
from pathlib import Path

import pytest
from google.protobuf.descriptor import EnumDescriptor, FileDescriptor, MethodDescriptor

from geniehive import failures
from geniehive.rules import model, operations
from geniehive.v1 import failure_pb2
from geniehive.v1.credential_pb2 import DESCRIPTOR as CREDENTIAL
from geniehive.v1.registry_pb2 import DESCRIPTOR as REGISTRY
from geniehive.v1.request_pb2 import DESCRIPTOR as REQUEST
from geniehive.v1.routing_pb2 import DESCRIPTOR as ROUTING
from tests.support import contract

# Of the rules -> of the contract. Where the contract's zero means "not said", a rule may leave it out.
ENUMS: dict[type[IntEnum], tuple[FileDescriptor, str]] = {
    operations.Operation: (REQUEST, "Operation"),
    operations.Ability: (REQUEST, "Ability"),
    model.Health: (REGISTRY, "HealthState"),
    model.Availability: (REGISTRY, "Availability"),
    model.Reason: (REGISTRY, "ConditionReason"),
    model.LoadState: (REGISTRY, "LoadState"),
    model.NameKind: (ROUTING, "NameKind"),
    model.Strategy: (REQUEST, "Strategy"),
    model.Gate: (ROUTING, "Gate"),
    model.Scope: (CREDENTIAL, "Scope"),
}


def test_stubs_are_what_the_pinned_generator_makes(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(root / "protos" / "generate.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["lint"], ["format", "--diff", "--exit-code"]], ids=" ".join)
def test_buf_finds_nothing(arguments: list[str], root: Path) -> None:
    buf = Path(sys.executable).parent / "buf"
    done = subprocess.run([str(buf), *arguments], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def all_methods() -> list[MethodDescriptor]:
    from geniehive.client.calls import SERVICES

    return [method for _, service in SERVICES.values() for method in service.methods]


def said(method: MethodDescriptor, root: Path) -> str:
    """The comment of a method, and that of its service, which may speak for all."""
    rpc = contract.rpcs(root)[method.full_name]
    return f"{rpc.comment} {rpc.service_comment}"


@pytest.mark.parametrize("method", all_methods(), ids=lambda method: method.full_name)
def test_every_rpc_says_who_may_call_how_long_it_may_take_and_how_it_fails(
    method: MethodDescriptor, root: Path
) -> None:
    assert contract.rpcs(root)[method.full_name].comment
    text = said(method, root)
    for word in ("Callers", "Deadline", "Errors"):
        assert re.search(rf"\b{word}\b", text), f"{method.full_name}: no {word}"


def test_every_service_of_the_contract_is_known_to_the_client(root: Path) -> None:
    assert {method.full_name for method in all_methods()} == contract.rpcs(root).keys()


@pytest.mark.parametrize("method", all_methods(), ids=lambda method: method.full_name)
def test_every_error_that_an_rpc_names_is_a_reason(method: MethodDescriptor, root: Path) -> None:
    known = {failures.reason_name(number) for number in failures.CODES}
    known |= {"ALREADY_EXISTS", "FAILED_PRECONDITION"}  # bare codes
    for part in re.findall(r"Errors(?: of every method)?: (.*?)(?: [A-Z][a-z]+:|$)", said(method, root)):
        # What stands in brackets explains.
        for name in re.findall(r"\b[A-Z]{2,}(?:_[A-Z]+)+\b", re.sub(r"\([^)]*\)", "", part)):
            assert name in known, f"{method.full_name} names {name}"


@pytest.mark.parametrize("name", failure_pb2.FailureReason.keys()[1:])
def test_every_reason_says_its_code_and_what_the_peer_does_next(name: str, root: Path) -> None:
    comment = contract.enum_comments(root, "FailureReason")[name]
    number = failure_pb2.FailureReason.Value(name)
    assert "Next:" in comment
    if name == "FAILURE_REASON_TABLE_REJECTED":
        return  # travels inside a stream only
    assert comment.split(".")[0] == failures.CODES[number].name


def test_every_reason_has_a_code() -> None:
    assert sorted(failures.CODES) == sorted(failure_pb2.FailureReason.values())


@pytest.mark.parametrize("ours", ENUMS, ids=lambda ours: ours.__name__)
def test_enums_of_the_rules_are_those_of_the_contract(ours: type[IntEnum]) -> None:
    file, name = ENUMS[ours]
    theirs: EnumDescriptor = file.enum_types_by_name[name]
    prefix = theirs.values_by_number[0].name.removesuffix("UNSPECIFIED")
    named = {value.number: value.name.removeprefix(prefix) for value in theirs.values}
    held = {member.value: member.name for member in ours}
    if 0 not in held or held[0] == "UNKNOWN":
        named.pop(0)
        held.pop(0, None)
    assert held == named


def test_paths_of_operations_are_those_of_the_contract(root: Path) -> None:
    """The comments of Operation list the paths."""
    comments = contract.enum_comments(root, "Operation")
    for path, operation in operations.BY_PATH.items():
        base, last = path.rsplit("/", 1)
        comment = comments[f"OPERATION_{operation.name}"]
        assert path in comment or (base in comment and last in comment), path
