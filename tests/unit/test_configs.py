"""`configs/*.full.yaml` show every option with its default: held to the code."""

import importlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from geniehive.kit import config
from geniehive.kit.config import Settings

TREES = {
    "control": ("geniehive_control.settings", "ControlSettings"),
    "node": ("geniehive_node.settings", "NodeSettings"),
    "gateway": ("gateway.settings", "GatewaySettings"),
}


def settings_of(daemon: str) -> type[Settings]:
    module, name = TREES[daemon]
    found: type[Settings] = getattr(importlib.import_module(module), name)
    return found


def defaults(settings: Settings) -> dict[str, Any]:
    """Every field, also those at their default, as YAML would have it."""
    tree: dict[str, Any] = {}
    for field in settings.__struct_fields__:
        value = getattr(settings, field)
        if value is msgspec.UNSET:
            continue  # what is left out says something of its own
        tree[field] = defaults(value) if isinstance(value, Settings) else msgspec.to_builtins(value)
    return tree


@pytest.mark.parametrize("daemon", TREES)
def test_every_option_stands_there_with_its_default(daemon: str, root: Path) -> None:
    shown = yaml.safe_load((root / "configs" / f"{daemon}.full.yaml").read_text())
    assert shown == defaults(settings_of(daemon)())


@pytest.mark.parametrize("daemon", TREES)
def test_the_file_can_be_used_as_it_is(daemon: str, root: Path) -> None:
    cls = settings_of(daemon)
    loaded = config.load(cls, prefix="GENIEHIVE_TEST", file=root / "configs" / f"{daemon}.full.yaml")
    assert loaded == cls()


@pytest.mark.parametrize("daemon", TREES)
def test_every_option_is_explained(daemon: str, root: Path) -> None:
    lines = (root / "configs" / f"{daemon}.full.yaml").read_text().splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        is_option = ":" in line and not line.lstrip().startswith(("#", "-")) and not line.endswith(":")
        assert not is_option or "#" in line or before.lstrip().startswith("#"), f"no comment at {line!r}"
