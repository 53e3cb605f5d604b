import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from geniehive.kit import state
from geniehive.kit.errors import UserError

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestFolder:
    def test_the_environment_says_where(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("GENIEHIVE_STATE_DIR", str(tmp_path / "here"))
        assert state.default_folder() == tmp_path / "here"

    @pytest.mark.parametrize(
        ("platform", "variable", "expected"),
        [
            ("linux", "XDG_STATE_HOME", "geniehive"),
            ("linux", None, ".local/state/geniehive"),
            ("darwin", None, "Library/Application Support/geniehive"),
            ("win32", "LOCALAPPDATA", "geniehive"),
            ("win32", None, "AppData/Local/geniehive"),
        ],
    )
    def test_else_the_custom_of_the_system(
        self, platform: str, variable: str | None, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name in ("GENIEHIVE_STATE_DIR", "XDG_STATE_HOME", "LOCALAPPDATA"):
            monkeypatch.delenv(name, raising=False)
        if variable:
            monkeypatch.setenv(variable, str(tmp_path))
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setattr(Path, "home", classmethod(lambda cls: tmp_path))
        assert state.default_folder() == tmp_path / expected

    @posix_only
    def test_it_is_made_for_its_owner_alone(self, tmp_path: Path) -> None:
        folder = state.ensure_folder(tmp_path / "a" / "b")
        assert mode(folder) == 0o700
        assert state.ensure_folder(folder) == folder

    def test_a_file_in_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match=r"cannot make the state folder .*file.*--state-dir"):
            state.ensure_folder(tmp_path / "file")
        with pytest.raises(UserError, match="cannot make the state folder"):
            state.ensure_folder(tmp_path / "file" / "below")

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
        with pytest.raises(UserError, match=r"cannot be written.*--state-dir"):
            state.ensure_folder(tmp_path)


class TestWritePrivate:
    @posix_only
    def test_only_the_owner_can_read_it(self, tmp_path: Path) -> None:
        path = tmp_path / "kept"
        path.write_bytes(b"old")
        path.chmod(0o666)
        state.write_private(path, b"new")
        assert path.read_bytes() == b"new"
        assert mode(path) == 0o600
        assert [p.name for p in tmp_path.iterdir()] == ["kept"]

    def test_the_old_file_is_intact_if_it_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "kept"
        path.write_bytes(b"old")

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            state.write_private(path, b"new")
        assert path.read_bytes() == b"old"
        assert [p.name for p in tmp_path.iterdir()] == ["kept"]

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="No such file"):
            state.write_private(tmp_path / "missing" / "kept", b"")


class TestLocalSecret:
    @posix_only
    def test_made_once_and_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "node.key"
        made = state.local_secret(path, "ghn")
        assert made.startswith("ghn-")
        assert len(made) >= 43  # 256 bits
        assert state.local_secret(path, "ghn") == made
        assert mode(path) == 0o600
        assert [p.name for p in tmp_path.iterdir()] == ["node.key"]
        assert state.local_secret(tmp_path / "other.key", "ghn") != made

    def test_threads_that_race_agree(self, tmp_path: Path) -> None:
        for round_number in range(20):
            path = tmp_path / f"{round_number}.key"
            with ThreadPoolExecutor(8) as pool:
                made = set(pool.map(lambda _, path=path: state.local_secret(path, "gh"), range(8)))
            assert len(made) == 1

    def test_processes_that_race_agree(self, tmp_path: Path, root: Path) -> None:
        code = (
            "import sys, pathlib; from geniehive.kit import state; sys.stdin.readline();"
            "print(state.local_secret(pathlib.Path(sys.argv[1]), 'gh'))"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "node.key")]
        racers = [
            subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(4)
        ]
        for racer in racers:  # all have started; now they go
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        said = {racer.communicate(timeout=20)[0] for racer in racers}
        assert len(said) == 1
        assert said.pop().startswith("gh-")

    def test_without_hard_links_it_is_made_all_the_same(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def unsupported(*_: object) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(os, "link", unsupported)
        path = tmp_path / "node.key"
        made = state.local_secret(path, "gh")
        assert state.local_secret(path, "gh") == made
        with ThreadPoolExecutor(8) as pool:
            others = list(pool.map(lambda _: state.local_secret(path, "gh"), range(8)))
        assert set(others) == {made}
        assert [p.name for p in tmp_path.iterdir()] == ["node.key"]

    def test_an_empty_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "node.key").touch()
        with pytest.raises(UserError, match=r"node\.key is empty\. Delete it"):
            state.local_secret(tmp_path / "node.key", "gh")

    @pytest.mark.parametrize("text", ["one two", "one\ntwo\n", "o\x01ne"])
    def test_a_file_with_more_than_a_secret_is_named(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "node.key").write_text(text)
        with pytest.raises(UserError, match=r"node\.key holds more than one secret"):
            state.local_secret(tmp_path / "node.key", "gh")

    def test_a_file_that_is_no_text_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "node.key").write_bytes(b"\xff\x00")
        with pytest.raises(UserError, match=r"cannot read the secret in .*node\.key"):
            state.local_secret(tmp_path / "node.key", "gh")
        (tmp_path / "folder.key").mkdir()
        with pytest.raises(UserError, match="cannot read the secret"):
            state.local_secret(tmp_path / "folder.key", "gh")

    def test_a_folder_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"cannot write the secret .*missing.*--state-dir"):
            state.local_secret(tmp_path / "missing" / "node.key", "gh")

    def test_a_full_disk_leaves_nothing_behind(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "link", full)
        monkeypatch.setattr(state, "_copy_new", full)
        with pytest.raises(UserError, match="No space left on device"):
            state.local_secret(tmp_path / "node.key", "gh")
        assert not list(tmp_path.iterdir())


class TestReadSecret:
    def test_without_the_white_space_around_it(self, tmp_path: Path) -> None:
        (tmp_path / "key").write_text("  sk-1\n\n")
        assert state.read_secret(tmp_path / "key") == "sk-1"

    @pytest.mark.parametrize("text", ["", "\n", "two keys", "two\nlines"])
    def test_what_holds_not_one_key(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "key").write_text(text)
        with pytest.raises(UserError, match="one key and nothing else") as caught:
            state.read_secret(tmp_path / "key")
        assert not text.strip() or text not in str(caught.value)

    def test_what_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="cannot read the key file"):
            state.read_secret(tmp_path / "missing")


class TestMachineId:
    def test_the_first_name_stays(self, tmp_path: Path) -> None:
        assert state.machine_id(tmp_path, "gpu-1") == "gpu-1"
        assert state.machine_id(tmp_path, "renamed") == "gpu-1"

    def test_what_was_written_by_hand_counts(self, tmp_path: Path) -> None:
        (tmp_path / "machine-id").write_text("mine\n")
        assert state.machine_id(tmp_path, "gpu-1") == "mine"

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"cannot write .*machine-id"):
            state.machine_id(tmp_path / "missing", "gpu-1")
