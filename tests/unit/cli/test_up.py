"""The options of `geniehive up`."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from geniehive.cli import up
from geniehive.cli.__main__ import main, parser
from geniehive.kit.errors import UserError


def parse(*arguments: str) -> argparse.Namespace:
    return parser().parse_args(["up", *arguments])


HERE = {
    "--listen": "127.0.0.1:8800",
    "--control-listen": "127.0.0.1:8801",
    "--embedded-listen": "127.0.0.1:8802",
    "--relay-listen": "127.0.0.1:8803",
}


def addresses(*arguments: str, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    return up.addresses(parse(*arguments), environment or {})


def test_the_defaults() -> None:
    given = parse()
    assert (given.servers, given.embedded) == (None, "auto")
    assert addresses() == HERE


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
    assert parse().servers is None


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
        (["--direct", "--relay"], "not allowed with"),
        (["--peers-port", "70000"], "'70000' is no port"),
    ],
)
def test_wrong_use_says_what_is_right(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_addresses_may_come_from_the_daemons_variables() -> None:
    told = {"GENIEHIVE_GATEWAY__LISTEN": "127.0.0.1:9000"}
    assert addresses(environment=told)["--listen"] == "127.0.0.1:9000"
    assert addresses("--listen", "127.0.0.1:9001", environment=told)["--listen"] == "127.0.0.1:9001"
    assert addresses("--lan", environment=told)["--listen"] == "0.0.0.0:8800"


def test_on_the_lan_everything_that_others_need_listens() -> None:
    assert addresses("--lan") == {
        "--listen": "0.0.0.0:8800",
        "--control-listen": "127.0.0.1:8801",
        "--embedded-listen": "127.0.0.1:8802",
        "--relay-listen": "0.0.0.0:8803",
        "--tls-listen": "0.0.0.0:8804",
        "--peers-port": "0.0.0.0:8805",
    }
    given = addresses("--lan", "--listen", "127.0.0.1:1", "--tls-listen", "192.0.2.1:2", "--peers-port", "3")
    assert given["--listen"] == "127.0.0.1:1"
    assert given["--relay-listen"] == "192.0.2.1:8803"
    assert (given["--tls-listen"], given["--peers-port"]) == ("192.0.2.1:2", "192.0.2.1:3")


def test_a_gateway_that_others_reach_lets_them_join_there() -> None:
    given = addresses("--listen", "[2001:db8::1]:80")
    assert given["--relay-listen"] == "[2001:db8::1]:8803"
    assert (given["--tls-listen"], given["--peers-port"]) == ("[2001:db8::1]:8804", "[2001:db8::1]:8805")
    # Only for the tools of this machine.
    assert addresses("--tls-listen", "127.0.0.1:5")["--relay-listen"] == "127.0.0.1:8803"


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--control-listen", "0.0.0.0:1"], {}, "--tls-listen ADDR, or with --lan"),
        (["--relay-listen", "0.0.0.0:1"], {}, "give --lan, or --tls-listen ADDR"),
        (["--listen", "nowhere"], {}, "--listen: 'nowhere' is no address"),
        (["--lan"], {"GENIEHIVE_CONTROL__TLS__PEERS_PORT": "x"}, "GENIEHIVE_CONTROL__TLS__PEERS_PORT: 'x' is no port"),
    ],
)
def test_addresses_that_cannot_be(arguments: list[str], environment: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        addresses(*arguments, environment=environment)


def test_a_key_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["up", "--state-dir", str(tmp_path), "--engine", "http://a", "--key-file", str(tmp_path / "none")]
    assert main(arguments) == 2
    assert "cannot read the key file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cert", "c"], "--cert and --key go together"),
        (["--cert", "none", "--key", "none"], "--cert: cannot read"),
        (["--advertise", "10.0.0.1:80"], "write this machine's address as others know it, without a port"),
    ],
)
def test_what_is_wrong_with_other_options(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up", "--state-dir", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_every_address_has_a_flag_of_its_own() -> None:
    defaults = [default for _, default, _ in up.ADDRESSES.values()]
    assert len(set(defaults)) == len(defaults)
