from pathlib import Path
from typing import get_args

import pytest

from geniehive.kit import config
from geniehive.rules.operations import BY_WORD
from geniehive_node import settings
from geniehive_node.engines.identify import RUNTIMES
from geniehive_node.settings import NodeSettings


def test_every_option_stands_in_the_full_file_with_its_default(root: Path) -> None:
    loaded = config.load(NodeSettings, prefix="X", file=root / "configs" / "node.full.yaml")
    assert loaded == NodeSettings()


def test_words_are_those_of_the_code() -> None:
    assert get_args(settings.Operation) == tuple(BY_WORD)
    assert get_args(settings.Runtime) == RUNTIMES


def test_an_engine_as_a_flag() -> None:
    flag = 'engines=[{"url": "http://127.0.0.1:8802", "name": "demo", "demo": true, "operations": ["chat"]}]'
    (engine,) = config.load(NodeSettings, prefix="X", overrides=[flag]).engines
    assert (engine.url, engine.demo, engine.operations, engine.runtime) == (
        "http://127.0.0.1:8802",
        True,
        ["chat"],
        "auto",
    )


def test_a_wrong_word_is_named() -> None:
    with pytest.raises(config.ConfigError, match="engines"):
        config.load(NodeSettings, prefix="X", overrides=['engines=[{"url": "http://a", "operations": ["talk"]}]'])
