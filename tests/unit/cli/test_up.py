"""The options of `geniehive up`."""

import argparse
from pathlib import Path

import pytest

from geniehive.cli import up
from geniehive.cli.__main__ import main, parser


def parse(*arguments: str) -> argparse.Namespace:
    return parser().parse_args(["up", *arguments])


def test_the_defaults() -> None:
    given = parse()
    assert (given.servers, given.embedded) == ([], "auto")
    assert (given.listen, given.control_listen) == ("127.0.0.1:8800", "127.0.0.1:8801")
    assert (given.embedded_listen, given.relay_listen) == ("127.0.0.1:8802", "127.0.0.1:8803")


def test_a_detail_belongs_to_the_server_before_it() -> None:
    given = parse(
        *("--engine", "http://a", "--key-file", "1", "--provider", "p", "--url", "https://p", "--key-file", "2"),
        *("--engine", "http://b"),
    )
    assert given.servers == [
        {"url": "http://a", "key_file": "1"},
        {"name": "p", "url": "https://p", "key_file": "2"},
        {"url": "http://b"},
    ]
    # And nothing is left for the next one.
    assert parse().servers == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--key-file", "x"], "--key-file belongs to the --engine or --provider before it, and there is none"),
        (["--engine", "http://a", "--key-file", "1", "--key-file", "2"], "--engine http://a has --key-file already"),
        (["--provider", "p", "--url", "u", "--url", "v"], "--provider p has --url already"),
        (["--engine", "http://a", "--url", "u"], "--url belongs to a --provider; --engine http://a is a URL itself"),
        (["--engine", "127.0.0.1:1"], "write the engine's URL"),
        (["--provider", "https://x"], "write the provider's name"),
        (["--embedded", "--no-embedded"], "not allowed with"),
    ],
)
def test_wrong_use_says_what_is_right(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_addresses_may_come_from_the_daemons_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENIEHIVE_GATEWAY__LISTEN", "127.0.0.1:9000")
    assert parse().listen == "127.0.0.1:9000"
    assert parse("--listen", "127.0.0.1:9001").listen == "127.0.0.1:9001"


def test_a_key_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["up", "--state-dir", str(tmp_path), "--engine", "http://a", "--key-file", str(tmp_path / "none")]
    assert main(arguments) == 2
    assert "cannot read the key file" in capsys.readouterr().err


def test_every_address_has_a_flag_of_its_own() -> None:
    defaults = [default for _, default, _ in up.ADDRESSES.values()]
    assert len(set(defaults)) == len(defaults)
