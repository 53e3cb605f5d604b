"""What a second machine is given."""

import socket
from pathlib import Path

import pytest

from geniehive.cli import banner, invite
from geniehive.cli.install import Install
from geniehive.failures import Refused
from geniehive.v1 import admin_service_pb2 as pb
from tests.support.fake_control import FakeControl


async def test_a_token_and_the_addresses_that_answer(control: FakeControl, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as open_one, socket.create_server(("127.0.0.1", 0)) as closed:
        answers, silent = (f"127.0.0.1:{s.getsockname()[1]}" for s in (open_one, closed))
        closed.close()
        told = pb.CreateJoinTokenResponse(token="ghj-x", addresses=[silent, answers])
        control.answers["CreateJoinToken"] = told
        made = await invite.make(control.address, tmp_path)
    assert made == ("ghj-x", (answers,))
    assert "ghj-x" not in repr(made)
    [request] = control.requests
    assert (request.uses, request.ttl.seconds) == (10, 86400)
    assert control.keys == [f"Bearer {(tmp_path / 'admin.key').read_text().strip()}"]


async def test_if_nothing_answers_all_are_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        silent = f"127.0.0.1:{closed.getsockname()[1]}"
    assert await invite.answering([silent]) == [silent]
    assert await invite.answering([]) == []


async def test_a_refusal_is_passed_on(control: FakeControl, tmp_path: Path) -> None:
    control.answers["CreateJoinToken"] = Refused(1, "no")
    with pytest.raises(Refused):
        await invite.make(control.address, tmp_path)


def test_what_is_printed() -> None:
    invitation = invite.Invitation("ghj-x", ("192.0.2.1:8804", "10.0.0.1:8804"))
    lines = banner.joining(Install("pipx install it", "Make a wheel."), invitation)
    assert lines[0].endswith("Make a wheel.")
    assert "  pipx install it" in lines
    assert "  geniehive join 192.0.2.1:8804 --token ghj-x" in lines
    assert "10 machines and 24 hours" in lines[-1]
    assert lines[-1].endswith("If control is not reached there: 10.0.0.1:8804.")
    assert "join HOST:PORT --token" in banner.join_line((), "ghj-x")
