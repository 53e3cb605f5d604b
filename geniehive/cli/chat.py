"""`geniehive chat MODEL`: asks a model through the gateway, as any client would."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from geniehive.cli import common, credentials, output
from geniehive.kit import address
from geniehive.kit.errors import EXIT_FAILED, EXIT_OK, UserError

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

    from geniehive.cli.common import Commands

_CONNECT_SECONDS = 5.0


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
    made.add_argument("--gateway", metavar="URL", help="the gateway (default: GENIEHIVE_GATEWAY, else that of `up`)")
    made.add_argument("--key", metavar="KEY", help="client key (default: GENIEHIVE_KEY, else this user's own)")


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
        with _posted(link, "/v1/chat/completions", body, given.timeout, _no_gateway(given)) as answer:
            if answer.status != 200:
                raise _refused(answer, link)
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


def _no_gateway(given: argparse.Namespace) -> str:
    """What to do if the gateway can't be reached."""
    control = credentials.joined(given)
    if control is None or given.gateway or os.environ.get(credentials.GATEWAY_VARIABLE):
        return "Is it running? `geniehive up` starts it; another address is given by --gateway URL"
    host, _ = address.split(control)
    _, _, usual = credentials.DEFAULT_GATEWAY.rpartition(":")
    return (
        f"This machine joined the cluster of {control}. Name a gateway of it: --gateway "
        f"http://{address.join(host, int(usual))}; or run one here: geniehive join --gateway"
    )


@contextmanager
def _posted(link: credentials.Link, path: str, body: bytes, timeout: float, what_next: str) -> Iterator["HTTPResponse"]:
    """The answer's head; its body is read within `with`. UserError if the gateway can't be reached."""
    from http.client import BadStatusLine
    from ssl import SSLCertVerificationError, SSLError

    from geniehive.kit import tls_probe

    connection, base = _connection(link.target)
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    if link.key:
        headers["Authorization"] = f"Bearer {link.key}"
    try:
        try:
            connection.connect()
        except SSLCertVerificationError as error:
            raise UserError(
                f"the certificate of the gateway at {link.target} is not accepted: {error.verify_message}. If it is of "
                "a CA of your own, name that in the environment: SSL_CERT_FILE=FILE",
                common.EXIT_UNREACHABLE,
            ) from error
        except SSLError as error:
            raise UserError(
                f"cannot reach the gateway at {link.target}: {tls_probe.words(error).partition(';')[0]}. Is it http://?",
                common.EXIT_UNREACHABLE,
            ) from error
        except OSError as error:
            raise UserError(
                f"cannot reach the gateway at {link.target}: {error.strerror or error}. {what_next}",
                common.EXIT_UNREACHABLE,
            ) from error
        connection.sock.settimeout(timeout)
        try:
            connection.request("POST", base + path, body, headers)
            answer = connection.getresponse()
        # Broken pipes among them: outside, that is one of our output.
        except (BadStatusLine, ConnectionError) as error:
            raise UserError(
                f"{link.target} gave no answer that a gateway gives; is the address right, and is it http:// or https://?",
                EXIT_FAILED,
            ) from error
        yield answer
    finally:
        connection.close()


def _connection(url: str) -> tuple["HTTPConnection", str]:
    """A connection, not opened yet, and the path that the URL has."""
    from http.client import HTTPConnection, HTTPSConnection
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or parts.scheme not in ("http", "https"):
        raise UserError(f"{url!r} is no URL of a gateway; write it like http://127.0.0.1:8800")
    made = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    return made(host, port, timeout=_CONNECT_SECONDS), parts.path


def _refused(answer: "HTTPResponse", link: credentials.Link) -> UserError:
    message = _error_text(answer.read(1 << 20)) or f"{answer.status} {answer.reason}"
    if answer.status == 401 and link.key is None:
        message += f". {common.GET_A_KEY}"
    elif answer.status in (401, 403):
        message += f" (the key came from {link.key_source})"
    elif answer.status == 404:
        message += ". `geniehive models` lists the names that there are"
    return UserError(message, EXIT_FAILED)


def _error_text(body: bytes) -> str:
    """The message of an error in OpenAI's shape; empty if it is in none."""
    try:
        content = json.loads(body)
        error = content["error"]
        return str(error["message"] if isinstance(error, dict) else error).rstrip(".")
    except (ValueError, KeyError, TypeError):
        return ""


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
            if message := _error_text(data.encode()):
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
