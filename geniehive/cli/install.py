"""How another machine installs what runs here, in one line."""

import importlib.metadata
import json
import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit


class Install(NamedTuple):
    """line: for a shell on the other machine. before: what to do first, for people; empty: nothing."""

    line: str
    before: str = ""


def here() -> Install:
    """For what is installed here."""
    try:
        found = importlib.metadata.distribution("geniehive")
        told = json.loads(found.read_text("direct_url.json") or "null")
        return how(told if isinstance(told, dict) else None, found.version)
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError):
        from geniehive._version import __version__

        return how(None, __version__)


def how(direct_url: Mapping[str, Any] | None, version: str) -> Install:
    """direct_url: as pip keeps it (PEP 610), where it did not install from an index."""
    told = direct_url or {}
    url = str(told.get("url", ""))
    vcs = told.get("vcs_info")
    if isinstance(vcs, dict) and url and not url.startswith("file:"):
        commit = vcs.get("commit_id") or vcs.get("requested_revision")
        source = f"{vcs.get('vcs', 'git')}+{_without_password(url)}"
        return _pipx(f"geniehive[all] @ {source}{f'@{commit}' if commit else ''}")
    if "archive_info" in told and url:
        if url.startswith("file:"):
            name = PurePosixPath(unquote(urlsplit(url).path)).name
            return _pipx(f"./{name}[all]", f"Copy {name} there, from which it was installed here.")
        return _pipx(f"geniehive[all] @ {_without_password(url)}")
    if url:
        name = f"geniehive-{version}-py3-none-any.whl"
        return _pipx(f"./{name}[all]", f"Make a wheel of this checkout by `make wheel`, and copy dist/{name} there.")
    return _pipx(f"geniehive[all]=={version}")


def _pipx(what: str, before: str = "") -> Install:
    return Install(f"pipx install {shlex.quote(what)}", before)


def _without_password(url: str) -> str:
    """pip should have left it out already."""
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    if at and ":" in user:
        parts = parts._replace(netloc=place)
    return urlunsplit(parts)
