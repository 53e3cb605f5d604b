from pathlib import Path

import pytest

from geniehive_node.__main__ import main


def test_help_names_the_file_with_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "configs/node.full.yaml" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("relay.advertise=a:b", "relay.advertise: 'a:b' is no address"),
        ("control=192.0.2.1:8801", "192.0.2.1:8801 is not on this machine"),
        ("host_id=My PC", "host_id 'My PC'"),
        ("poll_interval=0", "poll_interval"),
        ("poll_interval=.nan", "poll_interval"),
        ("relay.connect_timeout=0", "relay.connect_timeout"),
        ("stop_grace=-1", "stop_grace"),
        ("discover_ports=[0]", "discover_ports: 0"),
        ("nonsense=1", "unknown key 'nonsense'"),
        ("node_key={file: /nowhere}", "/nowhere"),
        ("engines=[{url: ftp://a}]", r"engines[0].url"),
    ],
)
def test_wrong_settings_end_with_a_word_and_no_traceback(
    flag: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--set", flag]) == 2
    shown = capsys.readouterr().err
    assert text in shown
    assert "Traceback" not in shown


def test_a_damaged_machine_id_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "machine-id").write_text("My PC\n")
    assert main(["--state-dir", str(tmp_path), "--set", "relay.listen=127.0.0.1:0"]) == 2
    assert "machine-id holds 'My PC', which is no host id" in capsys.readouterr().err
