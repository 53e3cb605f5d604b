"""What routing knows of an endpoint, and what control adds to its requests."""

import json

from geniehive.rules.model import Endpoint, Host, LoadState, RequestPolicy
from geniehive.rules.operations import Operation
from geniehive_control.core.defaults import RoutingDefaults
from geniehive_control.core.facts import Known, Machine, machine
from geniehive_control.core.table import Table
from tests.support.cluster import CHAT, asset, service


def test_alike_endpoints_share_their_facts() -> None:
    known = Known()
    here = machine(Host(host_id="a", trust_tier="own", labels={"zone": "z"}))
    first = known.of(service("a/x", "m"), asset("m"), here)
    assert known.of(service("b/x", "m"), asset("m", load_state=LoadState.UNKNOWN), here) is first
    assert first.labels == (("zone", "z"),)
    for other in (
        known.of(service("a/x", "m"), asset("m", load_state=LoadState.UNLOADED), here),
        known.of(service("a/x", "m"), asset("m"), Machine()),
        known.of(service("a/x", "m", labels={"zone": "y"}), asset("m"), here),
        known.of(service("a/x", "m", hosted=True), asset("m"), here),
    ):
        assert other is not first
        assert other != first
    # A service's own label wins over its host's.
    assert known.of(service("a/x", "m", labels={"zone": "y"}), asset("m"), here).labels == (("zone", "y"),)


def policies(runtime: str, name: str, routing: RoutingDefaults | None = None, **fields: object) -> list[RequestPolicy]:
    table = Table(routing)
    hosted = bool(fields.pop("hosted", False))
    table.put_service(service("a/x", asset(name, **fields), runtime=runtime, hosted=hosted))
    (endpoint,) = [content for name in table if isinstance(content := table.content(name), Endpoint)]
    return list(endpoint.asset.request_policies)


def test_qwen3_in_any_spelling_does_not_think_unless_asked_to() -> None:
    for name in ("qwen3:8b", "Qwen3.5-9B-Q5_K_M", "Qwen/Qwen3-8B"):
        (policy,) = policies("vllm", name)
        assert policy.operations == (CHAT,)
        assert json.loads(policy.defaults_json) == {"chat_template_kwargs": {"enable_thinking": False}}
        assert policy.overrides_json == ""
    (policy,) = policies("llamacpp", "mine", family="qwen3")
    assert "chat_template_kwargs" in policy.defaults_json


def test_ollama_is_told_in_its_own_words() -> None:
    (policy,) = policies("ollama", "qwen3:8b")
    assert json.loads(policy.defaults_json) == {"reasoning_effort": "none"}


def test_who_is_left_alone() -> None:
    assert policies("vllm", "Qwen/Qwen2.5-7B-Instruct") == []
    assert policies("ollama", "qwen2.5:7b") == []
    assert policies("vllm", "deepseek-r1:8b", family="qwen3") == []
    assert policies("openai", "qwen3-235b", hosted=True) == []
    assert policies("vllm", "qwen3:8b", RoutingDefaults(thinking_off=False)) == []


def test_what_a_node_says_comes_after_and_wins() -> None:
    own = RequestPolicy(operations=(Operation.CHAT,), defaults_json='{"reasoning_effort":"high"}')
    assert policies("ollama", "qwen3:8b", request_policies=(own,))[1:] == [own]
    # A provider has what was declared.
    assert policies("openai", "qwen3-235b", hosted=True, request_policies=(own,)) == [own]
