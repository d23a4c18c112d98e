"""A new folder: whole or not there, and never in the place of what is there."""

from pathlib import Path

import pytest

from tools.command import new_folder


def names(folder: Path) -> list[str]:
    """List all that is below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def fill(path: Path) -> None:
    """Make a folder with one file."""
    with new_folder(path) as part:
        (part / "file").write_text("whole")


def test_a_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "above" / "new"
    with new_folder(path) as part:
        (part / "file").write_text("half")
        assert not path.exists()
        (part / "file").write_text("whole")
    assert names(tmp_path) == ["above", "above/new", "above/new/file"]
    assert (path / "file").read_text() == "whole"
    # Others may read it as they may any folder.
    assert path.stat().st_mode == path.parent.stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("there", [[], ["above"], ["above", "above/new"]])
def test_nothing_is_left_after_an_error(
    error: type[BaseException], there: list[str], tmp_path: Path
) -> None:
    for name in there:
        (tmp_path / name).mkdir()
    with pytest.raises(error), new_folder(tmp_path / "above" / "new") as part:
        (part / "file").write_text("half")
        raise error
    assert names(tmp_path) == there


@pytest.mark.parametrize("name", ["mine", "mine/file"])
def test_what_is_there_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("keep")
    with pytest.raises(FileExistsError) as refused:
        fill(tmp_path / name)
    told = f"{tmp_path / name}: expected a new or an empty folder"
    assert str(refused.value) == told
    assert names(tmp_path) == ["mine", "mine/file"]
    assert (tmp_path / "mine" / "file").read_text() == "keep"


def test_what_came_meanwhile_is_kept(tmp_path: Path) -> None:
    with pytest.raises(OSError), new_folder(tmp_path / "new"):
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "theirs").touch()
    assert names(tmp_path) == ["new", "new/theirs"]


@pytest.mark.parametrize("is_link", [False, True])
def test_an_empty_folder_is_replaced_as_windows_needs_it(
    is_link: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = Path.rename

    def move_on_windows(source: Path, target: Path) -> Path:
        if target.exists():
            raise FileExistsError(target)
        return move(source, target)

    monkeypatch.setattr(Path, "rename", move_on_windows)
    path = tmp_path / "empty"
    path.mkdir()
    if is_link:
        path = tmp_path / "link"
        path.symlink_to("empty", target_is_directory=True)
    fill(path)
    assert path.is_symlink() == is_link
    assert (path / "file").read_text() == "whole"
