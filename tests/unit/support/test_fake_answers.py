"""The fake engine answers at every path, and its misbehaviour keeps or spoils the bytes as it says."""

import json

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geniehive.rules.operations import BY_PATH
from tests.support import fake_answers, fake_forms
from tests.support.fake_answers import Question, Stream, ToolCall, tool_call
from tests.support.fake_behaviour import cut_anew, mistyped
from tests.support.fake_engine import FakeEngine
from tests.support.fake_runtimes import Reply

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "input": "hi", "documents": ["a"], "prompt": "p"}
STREAMED = [p for p in BY_PATH if not p.endswith(("rerank", "embeddings", "moderations", "tokens", "variations"))]


def form_or_json(path: str, **more: str | bool) -> dict[str, object]:
    """How aiohttp's client is to send this question."""
    if path not in fake_forms.PATHS:
        return {"json": BODY | more}
    form = aiohttp.FormData()
    form.add_field("model", "m")
    for name, value in more.items():
        form.add_field(name, str(value).lower())
    form.add_field("image" if "images" in path else "file", b"\x00\r\n--x\xff" * 100, filename="a b.bin")
    return {"data": form}


@pytest.mark.parametrize("path", sorted(BY_PATH))
async def test_every_path_is_answered_and_counted(path: str) -> None:
    async with FakeEngine(models=["m"], name="A") as engine, aiohttp.ClientSession() as http:
        async with http.post(engine.url + path, **form_or_json(path)) as answer:  # type: ignore[arg-type]
            assert answer.status == 200
            assert await answer.read()
        assert (engine.served, engine.running) == (1, 0)
        engine.behave(status=503, body={"error": "no"})
        async with http.post(engine.url + path, **form_or_json(path)) as answer:  # type: ignore[arg-type]
            assert answer.status == 503
        engine.behave_well()
        engine.behave(cut_after=1, cut="reset")
        with pytest.raises(aiohttp.ClientError):
            async with http.post(engine.url + path, **form_or_json(path)) as answer:  # type: ignore[arg-type]
                await answer.read()
        assert engine.served == 2


@pytest.mark.parametrize("path", STREAMED)
async def test_streams_are_the_same_however_they_are_cut(path: str) -> None:
    async with FakeEngine(models=["m"], name="A") as engine, aiohttp.ClientSession() as http:
        seen = []
        for split in ((), (1,), (7, 3, 1000)):
            engine.behave(split=split, times=1)
            async with http.post(engine.url + path, **form_or_json(path, stream=True)) as answer:  # type: ignore[arg-type]
                seen.append(await answer.read())
        assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/images/generations", "/v1/audio/speech"])
async def test_floods_until_its_client_leaves(path: str) -> None:
    async with FakeEngine(models=["m"]) as engine, aiohttp.ClientSession() as http:
        engine.behave(flood=True)
        async with http.post(engine.url + path, json=BODY | {"stream": True}) as answer:
            assert len(await answer.content.readexactly(3_000_000)) == 3_000_000
        await engine.until(lambda: engine.clients_left == 1)


async def test_wrong_types_of_content_and_of_values() -> None:
    async with FakeEngine(models=["m"]) as engine, aiohttp.ClientSession() as http:
        engine.behave(content_type="text/html", times=1)
        async with http.post(engine.url + "/v1/chat/completions", json=BODY) as answer:
            assert answer.content_type == "text/html"
            assert "choices" in json.loads(await answer.text())
        engine.behave(mistyped=True)
        async with http.post(engine.url + "/v1/chat/completions", json=BODY) as answer:
            assert answer.content_type == "application/json"
            found = await answer.json()
        assert found["usage"]["completion_tokens"] == "3"
        assert isinstance(found["choices"], dict)
    assert mistyped(b'data: {"a": 1}\n\n') == b'data: {"a": "1"}\n\n'
    assert mistyped(b"\x00\xff") == b"\x00\xff"


@given(st.lists(st.binary()), st.lists(st.integers(1, 9), min_size=1))
def test_cutting_anew_changes_no_byte(pieces: list[bytes], sizes: list[int]) -> None:
    assert b"".join(cut_anew(pieces, sizes)) == b"".join(pieces)


@pytest.mark.parametrize("text", ["", "json", "text", "srt", "vtt", "verbose_json"])
def test_speech_is_text_in_every_format(text: str) -> None:
    form = {"response_format": text} if text else {}
    found = fake_forms.answer(Question("/v1/audio/transcriptions", form, "m", ["engine", " ", "A"]))
    assert isinstance(found, Reply)
    assert b"engine A" in found.payload()


def test_a_shell_is_called_if_there_is_one_and_only_once() -> None:
    other = {
        "type": "function",
        "name": "other",
        "parameters": {"required": ["n"], "properties": {"n": {"type": "integer"}}},
    }
    shell = {"name": "Bash", "input_schema": {"required": ["command"], "properties": {"command": {"type": "string"}}}}
    listed = {"type": "namespace", "name": "box", "tools": [{"type": "function", "name": "exec_command"}]}
    assert tool_call([other], False) == ToolCall("other", {"n": 1})
    assert tool_call([other, shell], False) == ToolCall("Bash", {"command": fake_answers.COMMAND})
    assert tool_call([other, listed], False) == ToolCall("exec_command", {}, "box")
    assert tool_call([other], True) is None
    assert tool_call(None, False) is None


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
def test_a_tool_is_called_whole_or_in_events(path: str, stream: bool) -> None:
    tools = [{"type": "function", "name": "look", "parameters": {"required": ["at"]}}]
    found = fake_answers.answer(Question(path, {"tools": tools, "stream": stream}, "m", ["x"]))
    raw = b"".join(found.pieces) if isinstance(found, Stream) else found.payload()
    assert b'"look"' in raw
    assert b'"tool_calls"' in raw or b'"function_call"' in raw or b'"tool_use"' in raw
