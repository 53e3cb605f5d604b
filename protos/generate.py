"""Writes geniehive/v1 from protos/geniehive/v1: `python protos/generate.py [--check]`.

The stubs are committed, so that nobody needs a generator to use them. `--check` writes nothing and exits 1 if
what is committed differs from what the pinned generator makes.
"""

import filecmp
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "protos"
PACKAGE = Path("geniehive/v1")
INIT = '"""The contract: generated from protos/geniehive/v1 by protos/generate.py. Do not edit."""\n'


def generate(out: Path) -> None:
    """Generates modules, types and gRPC stubs below `out`."""
    files = sorted(str(f.relative_to(SOURCES)) for f in (SOURCES / PACKAGE).glob("*.proto"))
    services = [f for f in files if f.endswith("_service.proto")]
    base = [sys.executable, "-m", "grpc_tools.protoc", f"-I{SOURCES}"]
    # The plug-ins stand beside the interpreter, also when the environment is not activated.
    environment = dict(os.environ, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")

    def run(*arguments: str) -> None:
        subprocess.run([*base, *arguments], check=True, cwd=SOURCES, env=environment, stderr=subprocess.DEVNULL)

    run(f"--python_out={out}", f"--mypy_out={out}", *files)
    run(f"--grpc_python_out={out}", f"--mypy_grpc_out={out}", *services)
    (out / PACKAGE / "__init__.py").write_text(INIT)


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    committed = ROOT / PACKAGE
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        generate(made)
        names = {f.name for f in (made / PACKAGE).iterdir()}
        held = {f.name for f in committed.glob("*.py*") if f.is_file()}
        stale = sorted(
            n
            for n in names | held
            if n not in names or n not in held or not filecmp.cmp(made / PACKAGE / n, committed / n, shallow=False)
        )
        if check:
            if stale:
                print(f"stale stubs in {PACKAGE}: {', '.join(stale)}; run `make stubs` and commit the result")
            return 1 if stale else 0
        for name in stale:
            if name in names:
                (committed / name).write_bytes((made / PACKAGE / name).read_bytes())
            else:
                (committed / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
