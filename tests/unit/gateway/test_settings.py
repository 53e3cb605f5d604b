from pathlib import Path

import msgspec
import yaml

from gateway.settings import GatewaySettings


def test_every_option_stands_in_the_full_file_with_its_default(root: Path) -> None:
    written = yaml.safe_load((root / "configs" / "gateway.full.yaml").read_text())
    assert written == msgspec.to_builtins(GatewaySettings())
