"""A request to the gateway, as any client would make it, and what to say when there is no answer."""

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from geniehive.cli import common, credentials
from geniehive.kit import address
from geniehive.kit.errors import EXIT_FAILED, UserError

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

_CONNECT_SECONDS = 5.0


def add_gateway_options(parser: argparse.ArgumentParser, key: str) -> None:
    """key: which key is wanted, in words."""
    parser.add_argument("--gateway", metavar="URL", help="the gateway (default: GENIEHIVE_GATEWAY, else that of `up`)")
    parser.add_argument("--key", metavar="KEY", help=f"{key} (default: GENIEHIVE_KEY, else this user's own)")


def no_gateway(given: argparse.Namespace) -> str:
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
def posted(link: credentials.Link, path: str, body: bytes, timeout: float, what_next: str) -> Iterator["HTTPResponse"]:
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


def refused(answer: "HTTPResponse", link: credentials.Link) -> UserError:
    message = error_text(answer.read(1 << 20)) or f"{answer.status} {answer.reason}"
    if answer.status == 401 and link.key is None:
        message += f". {common.GET_A_KEY}"
    elif answer.status in (401, 403):
        message += f" (the key came from {link.key_source})"
    elif answer.status == 404:
        message += ". `geniehive models` lists the names that there are"
    return UserError(message, EXIT_FAILED)


def error_text(body: bytes) -> str:
    """The message of an error in OpenAI's shape; empty if it is in none."""
    try:
        content = json.loads(body)
        error = content["error"]
        return str(error["message"] if isinstance(error, dict) else error).rstrip(".")
    except (ValueError, KeyError, TypeError):
        return ""
