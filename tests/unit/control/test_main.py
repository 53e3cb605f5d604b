"""How the command starts."""

import subprocess
import sys


def test_grpc_is_not_imported_before_it_is_told_how_to_listen() -> None:
    program = "import sys, geniehive_control.__main__; sys.exit('grpc' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
