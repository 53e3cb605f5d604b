"""This user's state folder, and the secrets kept in it.

Everything that must outlive a process lies below one folder: the database, the table a gateway kept, keys. Files are
readable by their owner alone.
"""

import os
import secrets
import sys
import tempfile
from pathlib import Path

from geniehive.kit.errors import UserError

VARIABLE = "GENIEHIVE_STATE_DIR"


def default_folder() -> Path:
    """Where state lies unless told otherwise, by the custom of the system."""
    if told := os.environ.get(VARIABLE):
        return Path(told).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "geniehive"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "geniehive"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "geniehive"


def ensure_folder(folder: Path) -> Path:
    """Makes the folder, for its owner alone. UserError if it can't be made or written."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the state folder {folder}: {error.strerror}. Choose another: --state-dir DIR"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"the state folder {folder} cannot be written. Mend its permissions, or choose another: --state-dir DIR"
        )
    return folder


def write_private(path: Path, content: bytes) -> None:
    """Replaces a file in one step, readable by its owner alone. OSError if that fails; the old file is then intact."""
    # mkstemp makes the file 0600 from the first byte.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def temporary(content: bytes, folder: Path | None = None) -> Path:
    """A new file for what must not be read by others. Whoever asked for it removes it.

    In `folder`, where whatever a killed process leaves is among its like; without one, or if it can't be written, where
    the system has such files.
    """
    try:
        handle, name = tempfile.mkstemp(dir=folder, prefix=".geniehive-")
    except OSError:
        handle, name = tempfile.mkstemp(prefix="geniehive-")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    return Path(name)


def new_secret(prefix: str) -> str:
    """A random 256-bit secret, such as "gh-...": what it is for can be seen, what it is can't be guessed."""
    return f"{prefix}-{secrets.token_urlsafe(32)}"


def local_secret(path: Path, prefix: str) -> str:
    """The secret in `path`, made by whichever process comes first.

    UserError if the file can't be read or made. Several processes may call this at once and get the same secret.
    """
    for _ in range(2):
        try:
            held = path.read_text(encoding="ascii").strip()
            if held and all("!" <= letter <= "~" for letter in held):
                return held
            what = "holds more than one secret" if held else "is empty"
            raise UserError(f"{path} {what}. Delete it, and a new secret will be made")
        except FileNotFoundError:
            pass
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the secret in {path}: {error}") from error
        try:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            try:
                with os.fdopen(handle, "w", encoding="ascii") as file:
                    file.write(new_secret(prefix) + "\n")
                # A link fails if another process was first, which os.replace would not.
                os.link(name, path)
            except FileExistsError:
                pass
            except (OSError, NotImplementedError):
                # A file system without hard links: the first to make the file wins all the same.
                try:
                    os.rename(name, path) if sys.platform == "win32" else _copy_new(name, path)
                except FileExistsError:
                    pass
            finally:
                Path(name).unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot write the secret {path}: {error.strerror}. Choose another folder: --state-dir DIR"
            ) from error
    raise UserError(f"cannot keep a secret in {path}: it vanishes as soon as it is written")


def _copy_new(source: str, target: Path) -> None:
    content = Path(source).read_bytes()
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)


def read_secret(path: Path) -> str:
    """A secret somebody wrote into a file: its text without white space around it. UserError says what is wrong."""
    try:
        text = path.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the key file {path}: {error}") from error
    if not text or any(c.isspace() for c in text):
        raise UserError(f"the key file {path} must hold one key and nothing else")
    return text


def machine_id(folder: Path, name: str) -> str:
    """The id by which this machine goes in its cluster: what `folder` holds, else `name`, which is then kept.

    Node and gateway of one machine share it, whichever starts first; a renamed machine keeps its id.
    """
    path = folder / "machine-id"
    try:
        if held := path.read_text(encoding="ascii").strip():
            return held
    except (OSError, UnicodeDecodeError):
        pass
    try:
        write_private(path, name.encode("ascii") + b"\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}. Choose another folder: --state-dir DIR") from error
    return name
