"""Hands a simple subtask to the model that suits it best: `python examples/offload.py "Summarise: …"`.

An agent with a strong model of its own need not do everything by that: the cluster says of each name, by its offload
hint, how well it does short tasks and on what basis. This picks the best of them for chat, and asks it. Uses nothing
but Python's standard library; the gateway and its key are in the environment: GENIEHIVE_GATEWAY (default:
http://127.0.0.1:8800) and GENIEHIVE_KEY.
"""

import json
import os
import sys
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

GATEWAY = os.environ.get("GENIEHIVE_GATEWAY", "http://127.0.0.1:8800").rstrip("/").removesuffix("/v1")
# Below this a subtask is better done by whoever has it.
LEAST = 0.5


def ask(path: str, body: dict[str, Any] | None = None) -> Any:
    """The answer's JSON."""
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("GENIEHIVE_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    content = None if body is None else json.dumps(body).encode()
    with urlopen(Request(GATEWAY + path, content, headers), timeout=120.0) as answer:
        return json.load(answer)


def suited(models: list[dict[str, Any]], least: float = LEAST) -> list[dict[str, Any]]:
    """Those that can be asked now and whose hint is good enough, best first; the faster of two that are as good."""
    found = []
    for model in models:
        about = model["geniehive"]
        hint = about.get("offload")
        if hint and about["available"] and "chat" in about["operations"] and hint["suitability"] >= least:
            found.append(model)

    def rank(model: dict[str, Any]) -> tuple[float, float, str]:
        about = model["geniehive"]
        return -about["offload"]["suitability"], -about.get("tokens_per_second", 0.0), model["id"]

    return sorted(found, key=rank)


def main(task: str) -> int:
    try:
        models = suited(ask("/v1/models")["data"])
        if not models:
            print("offload: no model here is known to be good at short tasks; see `geniehive bench`", file=sys.stderr)
            return 1
        best = models[0]
        hint = best["geniehive"]["offload"]
        print(f"to {best['id']}: {hint['suitability']:g} ({hint['basis']})", file=sys.stderr)
        answer = ask("/v1/chat/completions", {"model": best["id"], "messages": [{"role": "user", "content": task}]})
        print(answer["choices"][0]["message"]["content"])
    except HTTPError as error:
        print(f"offload: {json.load(error)['error']['message']}", file=sys.stderr)
        return 1
    except URLError as error:
        print(f"offload: the gateway at {GATEWAY} is not reached: {error.reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:]) or sys.stdin.read()))
