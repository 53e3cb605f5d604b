from pathlib import Path

import pytest

from geniehive.kit.errors import UserError
from geniehive.rules.model import PromptAction, SystemPrompt
from geniehive.rules.operations import Operation
from geniehive_node.settings import EngineSettings, PolicySettings, PromptSettings, ProviderSettings
from geniehive_node.sources import Place, places, read_key


def engine(url: str, **more: object) -> Place:
    return places([EngineSettings(url=url, **more)], [], [])[0]  # type: ignore[arg-type]


def provider(name: str, **more: object) -> Place:
    return places([], [ProviderSettings(name=name, **more)], [])[0]  # type: ignore[arg-type]


def test_well_known_ports() -> None:
    found = places([], [], [11434, 8080])
    assert [p.source.key for p in found] == ["http://127.0.0.1:11434", "http://127.0.0.1:8080"]
    assert all(p.source.loopback and not p.source.configured for p in found)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost:8080/v1/", "http://[::1]:8080"])
def test_what_is_configured_is_not_also_discovered(url: str) -> None:
    found = places([EngineSettings(url=url)], [], [8080, 8000])
    assert [p.target.origin.port for p in found] == [8080, 8000]
    assert found[0].source.configured


def test_an_engine_of_another_machine_does_not_hide_a_port_of_this_one() -> None:
    assert len(places([EngineSettings(url="http://192.0.2.7:8080")], [], [8080])) == 2


def test_an_engine(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sesame\n")
    place = engine(
        "http://192.0.2.7:8000/llm/v1",
        name="box",
        runtime="vllm",
        key_file=str(key),
        operations=["chat"],
        models=["m"],
        concurrency_limit=8,
    )
    source = place.source
    assert (source.key, source.url, source.base_path) == (
        "http://192.0.2.7:8000/llm/v1",
        "http://192.0.2.7:8000",
        "/llm/v1",
    )
    assert (source.name, source.runtime, source.has_key, source.loopback) == ("box", "vllm", True, False)
    assert (source.operations, source.models, source.concurrency_limit) == ((Operation.CHAT,), ("m",), 8)
    assert place.target.key == "sesame"
    assert "sesame" not in repr(place)
    assert engine("http://a:1/v1").source.base_path == engine("http://a:1").source.base_path == "/v1"


def test_request_policies() -> None:
    prompt = PromptSettings(prepend="Be brief.")
    entry = PolicySettings(models=["qwen*"], operations=["chat"], defaults={"n": 4096}, system_prompt=prompt)
    (found,) = engine("http://192.0.2.7:8000", request_policies=[entry]).source.policies
    assert (found.models, found.policy.operations) == (("qwen*",), (Operation.CHAT,))
    assert found.policy.defaults_json == '{"n": 4096}'
    assert found.policy.system_prompt == SystemPrompt(action=PromptAction.PREPEND, text="Be brief.")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (PolicySettings(defaults={"model": "other"}), r"engines\[0\].request_policies\[0\]: .*model"),
        (PolicySettings(user_template="no place"), "user_template lacks"),
        (PolicySettings(system_prompt=PromptSettings()), "give one of prepend, append and replace"),
        (PolicySettings(system_prompt=PromptSettings(append="a", replace="b")), "give one of"),
    ],
)
def test_request_policies_that_make_no_sense(wrong: PolicySettings, words: str) -> None:
    with pytest.raises(UserError, match=words):
        engine("http://192.0.2.7:8000", request_policies=[wrong])


def test_a_known_provider_takes_its_usual_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "gsk")
    place = provider("groq")
    assert (str(place.target.origin), place.target.base_path, place.target.key) == (
        "https://api.groq.com",
        "/openai/v1",
        "gsk",
    )
    assert place.source.hosted
    assert place.source.has_key
    assert place.source.name == "groq"


def test_another_provider_by_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "k")
    place = provider("mine", url="https://llm.example.com/v1", key_env="MY_KEY")
    assert (place.target.key, place.source.runtime) == ("k", "mine")


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (ProviderSettings(name="groq"), r"providers\[0\].*GROQ_API_KEY"),
        (ProviderSettings(name="mine"), r"not a known provider \(openai, .*url"),
        (ProviderSettings(name="mine", url="https://a"), "needs a key; give key_file or key_env"),
        (ProviderSettings(name="mine", url="https://a", key_env="NOT_SET"), "NOT_SET is not set"),
        (ProviderSettings(name="groq", key_file="/nowhere/key"), "cannot read the key file /nowhere/key"),
        (ProviderSettings(name="groq", key_file="a", key_env="b"), "name one of them"),
        (ProviderSettings(name="No Name"), r"providers\[0\].name 'No Name'"),
    ],
)
def test_what_a_provider_lacks_is_said(entry: ProviderSettings, text: str) -> None:
    with pytest.raises(UserError, match=text):
        places([], [entry], [])


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ([EngineSettings(url="127.0.0.1:8080")], r"engines\[0\].url: .*http://"),
        ([EngineSettings(url="http://a:1", name="A b")], r"engines\[0\].name 'A b'"),
        (
            [EngineSettings(url="http://a:1", concurrency_limit=0)],
            r"engines\[0\].concurrency_limit: 0 must be at least 1",
        ),
        ([EngineSettings(url="http://a:1"), EngineSettings(url="http://a:1/v1")], "two engines .* are at 'http://a:1'"),
        ([EngineSettings(url="http://a:1", name="x"), EngineSettings(url="http://a:2", name="x")], "are named 'x'"),
    ],
)
def test_what_is_wrong_with_an_engine_is_said(entries: list[EngineSettings], text: str) -> None:
    with pytest.raises(UserError, match=text):
        places(entries, [], [])


def test_keys_are_never_in_the_errors_about_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAD_KEY", "sesame\x07")
    with pytest.raises(UserError, match="letters that no key has") as error:
        read_key(None, "BAD_KEY", "node_key")
    assert "sesame" not in str(error.value)
