"""The commands of tools: what they refuse, and folders that are whole or absent."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.conftest import file_bytes
from tools import flare_capture
from tools.command import new_folder

THERE = "expected a folder that is not there yet"
OUTSIDE = "expected one inside 23000 x 23000 pixels"
REFUSED = [
    *(("slide", "new --y 22900", OUTSIDE), ("slide", "new --width 0", OUTSIDE)),
    *(("slide", ".", f".: {THERE}"), ("slide", "mine.txt", f"mine.txt: {THERE}")),
    *(("tile_game", ". --count 1", THERE), ("road_scenes", ". --count 1", THERE)),
    ("tile_game", "new --count 0", "count 0: expected 1 to 99999"),
    ("tile_game", "new --count 100000", "count 100000: expected 1 to 99999"),
    ("tile_game", "new --seed -2", "seed -199999: expected 0 or more"),
    ("road_scenes", "new --count 0", "count 0: expected 1 or more"),
    ("road_scenes", "new --width 10", "smaller side 10: expected 32 or more"),
    ("build_set", "none new", "none: holds no raw items; capture some first"),
    ("flare_capture", "new", "on Debian: apt-get install flare-game"),
    ("freedoom_capture", "new", "pip install vizdoom==1.3.2"),
    ("freedoom_capture", "new --count 0", "count 0: expected 1 or more"),
    ("freedoom_capture", "new --walks -1", "walks -1: expected 1 or more"),
    ("train_reference", "--output new --pictures none", "there is no such folder"),
    ("refresh_notebooks", "--folder .", ".: no notebook"),
    ("trail", "mine.txt Circle", "no Circle at the top of the file"),
]


@pytest.mark.parametrize(("name", "words", "message"), REFUSED)
def test_what_is_refused_is_one_line_and_changes_nothing(
    name: str, words: str, message: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(flare_capture, "GAME", tmp_path / "flare")
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    (tmp_path / "mine.txt").write_text("keep = 1")
    with pytest.raises(SystemExit, match="2"):
        import_module(f"tools.{name}").main(words.split())
    line = capsys.readouterr().err.splitlines()[-1]  # after a progress bar
    assert line.startswith(f"python -m tools.{name}: ") and message in line
    assert file_bytes(tmp_path) == {"mine.txt": b"keep = 1"}
    assert [*tmp_path.iterdir()] == [tmp_path / "mine.txt"]


@pytest.mark.parametrize("name", sorted({name for name, *_ in REFUSED}))
def test_help_says_what_a_command_does(name: str, capsys) -> None:
    tool = import_module(f"tools.{name}")
    with pytest.raises(SystemExit, match="0"):
        tool.main(["--help"])
    told = capsys.readouterr().out
    assert told.startswith(f"usage: python -m tools.{name} ") and tool.__doc__ in told
    assert name != "build_set" or "pictures of Flare (80)" in told


def names(folder: Path) -> list[str]:
    """List all that is below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("there", [[], ["above"]])
def test_a_folder_appears_whole_or_not_at_all(
    error: type[BaseException] | None, there: list[str], tmp_path: Path
) -> None:
    for name in there:
        (tmp_path / name).mkdir()
    path = tmp_path / "above" / "new"
    try:
        with new_folder(path) as part:
            (part / "file").write_text("whole")
            assert not (path / "file").exists()
            if error:
                raise error
        assert names(tmp_path) == ["above", "above/new", "above/new/file"]
        # Others may read it as they may any folder.
        assert path.stat().st_mode == path.parent.stat().st_mode
    except (ValueError, KeyboardInterrupt):
        assert error and names(tmp_path) == there


def test_what_came_meanwhile_is_kept(tmp_path: Path) -> None:
    with pytest.raises(OSError), new_folder(tmp_path / "new"):
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "theirs").touch()
    assert names(tmp_path) == ["new", "new/theirs"]
