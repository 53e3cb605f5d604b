"""A file that is only appended to, and does not grow without end: access.log, access.log.1 (older), access.log.2 ..."""

import os
from pathlib import Path
from typing import BinaryIO


class RotatedFile:
    """For its owner alone. max_bytes: beyond it a new file is begun. keep: how many older ones stay.

    Whoever appends need not be the same thread each time, but must be one at a time.
    """

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._file: BinaryIO | None = None

    def append(self, data: bytes) -> None:
        """OSError if that fails; the next call tries again."""
        try:
            file = self._opened()
            file.write(data)
            if file.tell() >= self._max_bytes:
                self._rotate()
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _opened(self) -> BinaryIO:
        if self._file is None or not self._path.exists():
            self.close()
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = open(self._path, "ab", buffering=0, opener=_private)  # noqa: SIM115 - kept open
        return self._file

    def _rotate(self) -> None:
        self.close()
        for number in range(self._keep, 0, -1):
            older = self._numbered(number)
            newer = self._numbered(number - 1)
            if newer.exists():
                os.replace(newer, older)
        if not self._keep:
            self._path.unlink(missing_ok=True)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
