"""Codex, Claude Code, openai for Node and langchain, installed for this alone, for which the network is needed."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import installed
from tests.support.fake_answers import COMMAND
from tests.support.processes import ROOT
from tests.support.standing import MODEL, Standing

pytestmark = [pytest.mark.proof, pytest.mark.timeout(900)]

CLIENTS = ROOT / "tests" / "clients"
SAID = "engine A"
RAN = COMMAND.removeprefix("echo ")


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    with Standing(tmp_path_factory.mktemp("agents")) as made:
        yield made


@pytest.fixture
def house(standing: Standing) -> Standing:
    standing.fresh()
    return standing


def run(command: list[str | Path], folder: Path, more: Mapping[str, str] = {}) -> str:
    """What it prints. It has a home of its own, and of the environment only what finds programs."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "LANG") if name in os.environ}
    work = folder / "work"
    work.mkdir()
    ran = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=work,
        stdin=subprocess.DEVNULL,
        env={**kept, "HOME": str(folder), "USERPROFILE": str(folder), **more},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + "\n" + ran.stderr


def program(folder: Path, name: str) -> str:
    found = shutil.which(name, path=folder / "node_modules" / ".bin")
    assert found is not None, folder
    return found


def test_codex_calls_a_tool_and_ends_its_turn(house: Standing, tmp_path: Path) -> None:
    folder = installed.npm("@openai/codex@0.169.0")
    provider = f'{{name="hive",base_url="{house.url}/v1",env_key="HIVE_KEY",wire_api="responses"}}'
    settings = [f"model={MODEL}", "model_provider=hive", f"model_providers.hive={provider}"]
    (tmp_path / ".codex").mkdir()
    said = run(
        [
            *[program(folder, "codex"), "exec", "--json", "--skip-git-repo-check"],
            # Its sandbox needs a kernel's leave; the command is known and harmless.
            "--dangerously-bypass-approvals-and-sandbox",
            *(part for setting in settings for part in ("-c", setting)),
            "say hi",
        ],
        tmp_path,
        {"CODEX_HOME": str(tmp_path / ".codex"), "HIVE_KEY": house.key},
    )
    assert RAN in said
    assert SAID in said
    first, second = (json.loads(request["body"]) for request in house.asked("/v1/responses"))
    assert not [item for item in first["input"] if item["type"] == "function_call_output"]
    (output,) = (item["output"] for item in second["input"] if item["type"] == "function_call_output")
    assert RAN in json.dumps(output)


def test_claude_code_calls_a_tool_and_ends_its_turn(house: Standing, tmp_path: Path) -> None:
    folder = installed.npm("@anthropic-ai/claude-code@2.1.197")
    said = run(
        [program(folder, "claude"), "-p", "say hi", "--allowedTools", "Bash", "--output-format", "json"],
        tmp_path,
        {
            "ANTHROPIC_BASE_URL": house.url,
            "ANTHROPIC_API_KEY": house.key,
            "ANTHROPIC_MODEL": MODEL,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "IS_SANDBOX": "1",
        },
    )
    result = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert (result["result"], result["num_turns"], result["is_error"]) == (SAID, 2, False)
    *_, last = (json.loads(request["body"]) for request in house.asked("/v1/messages"))
    results = [part for message in last["messages"] for part in parts(message) if part["type"] == "tool_result"]
    assert RAN in json.dumps(results)


def parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    return message["content"] if isinstance(message["content"], list) else []


def test_openai_for_node(house: Standing, tmp_path: Path) -> None:
    folder = installed.npm("openai@6.49.0")
    # Modules are looked for from where the file stands.
    script = shutil.copy(CLIENTS / "openai_turn.mjs", folder)
    seen = json.loads(run(["node", script, house.url + "/v1", house.key, MODEL], tmp_path))
    assert seen == {
        "text": SAID,
        "streamed": SAID,
        "usages": [3],
        "tool": "weather",
        "responses": SAID,
        "vectors": [8, 8],
        "picture": True,
        "sound": 44 + 3 * 4800,
        "heard": SAID,
        "missing": "NotFoundError 404 model_not_found",
        "stranger": "AuthenticationError 401 invalid_api_key",
    }


def test_langchain(house: Standing, tmp_path: Path) -> None:
    interpreter = installed.python("langchain-openai==1.7.3")
    said = run([interpreter, CLIENTS / "langchain_turn.py", house.url + "/v1", house.key, MODEL], tmp_path)
    assert json.loads(said.strip().splitlines()[0]) == {
        "text": SAID,
        "usage": 3,
        "streamed": SAID,
        "usages": [3],
        "tool": "weather",
        "told": SAID,
        "responses": SAID,
        "vectors": [8, 8],
        "refused": "OpenAIModelNotFoundError",
    }
