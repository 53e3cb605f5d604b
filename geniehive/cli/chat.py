"""`geniehive chat MODEL`: asks a model through the gateway, as any client would."""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from geniehive.cli import asking, common, credentials, output
from geniehive.kit.errors import EXIT_FAILED, EXIT_OK, UserError

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from geniehive.cli.common import Commands


def add(commands: "Commands") -> None:
    made = common.add_command(
        commands,
        "chat",
        "ask a model through the gateway",
        run,
        "Ask a model through the gateway. The prompt is what follows the model's name, else standard input.",
    )
    made.add_argument("model", metavar="MODEL", help="a name that `geniehive models` lists")
    made.add_argument("prompt", metavar="PROMPT", nargs="*", help="what to ask (default: standard input)")
    made.add_argument("--stream", action="store_true", help="print the answer as it comes")
    made.add_argument("--system", metavar="TEXT", help="a system prompt")
    made.add_argument("--max-tokens", metavar="N", type=int, help="the longest answer")
    made.add_argument("--timeout", metavar="SECONDS", type=float, default=300.0, help="the longest silence (300)")
    asking.add_gateway_options(made, "client key")


def take_prompt(given: argparse.Namespace, words: list[str]) -> bool:
    """Takes what stood behind the options as the prompt; False if it is none."""
    if any(word.startswith("-") for word in words):
        return False
    given.prompt = [*given.prompt, *words]
    return True


def run(given: argparse.Namespace) -> int:
    from http.client import HTTPException

    if given.timeout <= 0:
        raise UserError(f"--timeout {given.timeout:g}: give the seconds of the longest silence, more than 0")
    link = credentials.gateway(given)
    body = json.dumps(_request(given)).encode()
    try:
        with asking.posted(link, "/v1/chat/completions", body, given.timeout, asking.no_gateway(given)) as answer:
            if answer.status != 200:
                raise asking.refused(answer, link)
            if given.stream:
                return _show_stream(answer, given.json)
            return _show_whole(answer, given.json)
    except TimeoutError as error:
        raise UserError(f"{link.target} was silent for {given.timeout:g} s", EXIT_FAILED) from error
    except BrokenPipeError:
        raise
    except (OSError, HTTPException) as error:
        raise UserError(f"the answer was cut off: {error or type(error).__name__}", EXIT_FAILED) from error


def _request(given: argparse.Namespace) -> dict[str, Any]:
    prompt = " ".join(given.prompt)
    if not prompt:
        if sys.stdin.isatty():
            print("type the prompt, and end it with Ctrl-D", file=sys.stderr)
        prompt = sys.stdin.read().strip()
    if not prompt:
        raise UserError("there is nothing to ask: give a prompt after the model's name, or on standard input")
    messages = [{"role": "system", "content": given.system}] if given.system else []
    request: dict[str, Any] = {"model": given.model, "messages": [*messages, {"role": "user", "content": prompt}]}
    if given.stream:
        request["stream"] = True
    if given.max_tokens is not None:
        request["max_tokens"] = given.max_tokens
    return request


def _show_whole(answer: "HTTPResponse", as_json: bool) -> int:
    body = answer.read()
    try:
        content = json.loads(body)
        text = content["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError("the answer is no chat completion", EXIT_FAILED) from error
    if as_json:
        output.show_json(content)
    else:
        print(text or "")
    return EXIT_OK


def _show_stream(answer: "HTTPResponse", as_json: bool) -> int:
    """Prints what comes when it comes. UserError if the stream ends before its end mark."""
    try:
        for data in _events(answer):
            if data == "[DONE]":
                return EXIT_OK
            if message := asking.error_text(data.encode()):
                raise UserError(message, EXIT_FAILED)
            if as_json:
                print(data, flush=True)
            else:
                print(_delta(data), end="", flush=True)
    finally:
        # Also after Ctrl-C: the shell's prompt begins on a line of its own.
        if not as_json:
            print(flush=True)
    raise UserError("the answer was cut off: the stream ended without its end mark", EXIT_FAILED)


def _events(answer: "HTTPResponse") -> Iterator[str]:
    """The data of each server-sent event."""
    lines: list[str] = []
    while raw := answer.readline():
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if line.startswith("data:"):
            lines.append(line[5:].removeprefix(" "))
        elif not line and lines:
            yield "\n".join(lines)
            lines = []


def _delta(data: str) -> str:
    try:
        choices = json.loads(data)["choices"]
        return (choices[0]["delta"].get("content") or "") if choices else ""
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError("the stream holds what is no chat completion", EXIT_FAILED) from error
