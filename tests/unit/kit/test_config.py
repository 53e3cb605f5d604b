import re
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geniehive.kit import config
from geniehive.kit.config import ConfigError, Settings


class Limits(Settings, frozen=True, kw_only=True):
    connect: float = 5.0
    total: float | None = None


class Engine(Settings, frozen=True, kw_only=True):
    url: str
    models: tuple[str, ...] = ()


class Example(Settings, frozen=True, kw_only=True):
    listen: str = "127.0.0.1:1"
    discover: bool = True
    level: Literal["low", "high"] = "low"
    limits: Limits = Limits()
    engines: tuple[Engine, ...] = ()
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    keys: tuple[str, ...] | None = None
    spare: Limits | None = None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "example.yaml"


def load(
    file: Path | None = None, environment: dict[str, str] | None = None, overrides: tuple[str, ...] = ()
) -> Example:
    return config.load(Example, prefix="TEST", file=file, environment=environment, overrides=overrides)


def refusal(
    file: Path | None = None, environment: dict[str, str] | None = None, overrides: tuple[str, ...] = ()
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(file, environment, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_gives_the_defaults() -> None:
    assert load() == Example()


def test_flags_win_over_the_environment_and_that_over_the_file(file: Path) -> None:
    file.write_text("listen: 'f:1'\nlimits: {connect: 1, total: 1}\nlevel: high\n")
    environment = {"TEST__LISTEN": "e:1", "TEST__LIMITS__CONNECT": "2"}
    made = load(file, environment, ("listen=s:1",))
    assert made == Example(listen="s:1", level="high", limits=Limits(connect=2.0, total=1.0))


def test_an_empty_file_is_allowed(file: Path) -> None:
    file.write_text("# all at their defaults\n")
    assert load(file) == Example()


def test_values_of_environment_and_flags_are_yaml() -> None:
    made = load(
        environment={"TEST__DISCOVER": "false", "TEST__ENGINES": "[{url: 'http://a', models: [x, y]}]"},
        overrides=("limits.total=null", "labels={room: attic}", "keys=[]", "spare.connect=3"),
    )
    assert made == Example(
        discover=False,
        engines=(Engine(url="http://a", models=("x", "y")),),
        labels={"room": "attic"},
        keys=(),
        spare=Limits(connect=3.0),
    )


def test_a_list_is_replaced_or_added_to(file: Path) -> None:
    file.write_text("engines: [{url: a}]\nkeys: [k]\n")
    assert load(file, overrides=("engines=[{url: b}]",)).engines == (Engine(url="b"),)
    assert load(file, overrides=("engines+=[{url: b}]",)).engines == (Engine(url="a"), Engine(url="b"))
    assert load(overrides=("engines+=[{url: b}]", "engines+=[{url: c}]")).engines == (Engine(url="b"), Engine(url="c"))
    assert "expected a list" in refusal(overrides=("engines+={url: b}",))


def test_other_variables_are_left_alone() -> None:
    assert load(environment={"TEST_LISTENER": "x", "OTHER__LISTEN": "x", "TESTING__A": "x"}) == Example()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listne: x", "unknown key 'listne'; allowed at the top: discover, engines, keys, labels, level, limits"),
        ("limits: {conect: 1}", "unknown key 'limits.conect'; allowed in limits: connect, total"),
        ("spare: {conect: 1}", "unknown key 'spare.conect'; allowed in spare: connect, total"),
        ("engines: [{url: a}, {uri: b}]", "unknown key 'engines[1].uri'"),
        ("engines: [{}]", "missing required field `url`"),
        ("limits: {connect: soon}", "limits.connect: expected a number, got text"),
        ("discover: 1", "discover: expected true or false, got a whole number"),
        ("level: middle", "level: invalid enum value 'middle'"),
        ("labels: {a: 1}", "labels[...]: expected text, got a whole number"),
        ("limits: 5", "limits: expected keys with values, got a whole number"),
        ("- a", "expected keys with values, got a list"),
        ("listen: [", "is not valid YAML"),
        ("listen: 'a\n", "is not valid YAML"),
        (
            "listen: x\ndiscover: @",
            "is not valid YAML: found character '@' that cannot start any token (line 2, column 11)",
        ),
        ("listen: 2024-99-99", "is not valid YAML"),
        ("listen: !!timestamp x", "is not valid YAML"),
        ("listen: \a", "is not valid YAML"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_name(text: str, said: str, file: Path) -> None:
    file.write_text(text)
    message = refusal(file)
    assert str(file) in message or "missing required" in message
    assert said in message


@pytest.mark.parametrize(
    ("environment", "overrides", "said"),
    [
        ({"TEST__LISTNE": "x"}, (), "environment variable TEST__LISTNE: unknown key 'listne'"),
        ({"TEST__LIMITS__CONNECT": "soon"}, (), "environment variable TEST__LIMITS__CONNECT: limits.connect: expected"),
        ({"TEST__KEYS": "["}, (), "environment variable TEST__KEYS is not valid YAML: "),
        ({}, ("limits.conect=1",), "--set limits.conect: unknown key 'limits.conect'"),
        ({}, ("listen",), "--set listen: expected KEY=VALUE"),
        ({}, ("level=loud",), "--set level: level: invalid enum value 'loud'; allowed: low, high"),
        ({}, ("limits.total=x",), "limits.total: expected a number or null, got text"),
        ({"TEST_LIMITS_TOTAL": "1"}, (), "two underscores stand before a key; write TEST__LIMITS_TOTAL"),
        ({}, ("=x",), "expected KEY=VALUE"),
        ({}, ("listen=5",), "--set listen: listen: expected text, got a whole number"),
        ({}, ("listen.port=5",), "--set listen.port: listen: expected text, got keys with values"),
    ],
)
def test_what_is_wrong_elsewhere_is_said_with_its_source(
    environment: dict[str, str], overrides: tuple[str, ...], said: str
) -> None:
    assert said in refusal(environment=environment, overrides=overrides)


@pytest.mark.parametrize("text", ["[sesame", "{a: 'sesame", "!!int sesame", "!!python/name:x sesame"])
def test_no_secret_in_what_is_no_yaml_is_repeated(text: str, file: Path) -> None:
    file.write_text(f"keys: {text}")
    assert "sesame" not in refusal(file)
    assert "sesame" not in refusal(environment={"TEST__KEYS": text})
    assert "sesame" not in refusal(overrides=(f"keys={text}",))


def test_no_secret_of_a_flag_is_repeated() -> None:
    assert "sesame" not in refusal(overrides=('engines=[{url: x, kye: "sesame"}]',))


def test_a_file_that_cannot_be_read(file: Path, tmp_path: Path) -> None:
    assert re.search(r"cannot read the configuration .*example\.yaml", refusal(file))
    assert "cannot read" in refusal(tmp_path)
    file.write_bytes(b"\xff\xfe")
    assert "cannot read" in refusal(file)


def test_a_required_key_may_come_from_another_source() -> None:
    class Needy(Settings, frozen=True, kw_only=True):
        url: str
        name: str

    made = config.load(Needy, prefix="T", environment={"T__URL": "u"}, overrides=("name=n",))
    assert made == Needy(url="u", name="n")
    with pytest.raises(ConfigError, match="missing required field `name`"):
        config.load(Needy, prefix="T", environment={"T__URL": "u"})


@settings(deadline=None)
@given(st.text(max_size=30))
def test_no_text_gives_anything_but_settings_or_the_error(text: str) -> None:
    try:
        made = load(overrides=(f"labels={text}",))
    except ConfigError:
        return
    assert isinstance(made.labels, dict)
