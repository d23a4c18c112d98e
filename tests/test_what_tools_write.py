"""The table of what tools write: how files are looked at, and how the page is kept."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools import what_tools_write
from tools.what_tools_write import CAT, DOG, HEAD, MARKS, PAGE, TOOLS, look_at, main

NAMES = [tool.package.replace("==", " ") for tool in TOOLS]


def picture(folder: Path, name: str, *objects: tuple[tuple[int, int], int]) -> None:
    values = np.zeros((24, 40), np.uint8)
    for (row, column), value in objects:
        values[row : row + 2, column : column + 2] = value
    folder.mkdir(exist_ok=True)
    Image.fromarray(values).save(folder / name)


def test_programs_are_python_and_packages_are_exact() -> None:
    for tool in TOOLS:
        compile(what_tools_write.SCENE + tool.program, tool.package, "exec")
        assert all(len(one.split("==")) == 2 for one in (tool.package, *tool.more))


def test_files_are_told_by_values(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    picture(folder, "p_both_mask.png", (CAT, 1), (DOG, 2), ((20, 0), 255))
    picture(folder, "p_one_mask.png", (DOG, 1))
    cells = ["export", "{key}_mask.png", "L", "1, 2", "1", "0", "255"]
    assert [*look_at(folder)] == [[*cells, "no file"]]
    picture(folder, "p_none_mask.png")
    assert [*look_at(folder)] == [[*cells, "a file, all 0"]]


def test_files_of_objects_and_texts_are_told(tmp_path: Path) -> None:
    for name in ("task-1-cat-0.png", "task-1-dog-0.png", "task-2-dog-0.png"):
        picture(tmp_path / "brush", name, (DOG, 255))
    ((_, place, mode, values, *_, nothing),) = look_at(tmp_path / "brush")
    assert (place, mode) == ("task-N-{class}-N.png", "L")
    assert (values, nothing) == ("0, 255 in 3 files", "no file")
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "p_both.txt").write_text("0 1\n")
    (folder / "p_none.txt").touch()
    cells = ["texts", "{key}.txt", "no picture", "", "", "", ""]
    assert [*look_at(folder)] == [[*cells, "a text file of 0 bytes"]]


def test_rows_of_other_tools_stay(tmp_path: Path, monkeypatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{MARKS[0]}{MARKS[1]}after\n", encoding="utf-8")

    def run_all(value: str, *words: str) -> None:
        def measure(tool):
            name = tool.package.replace("==", " ")
            return [[name, value, *[""] * (len(HEAD) - 2)]]

        monkeypatch.setattr(what_tools_write, "measure", measure)
        assert main(["--page", str(page), *words]) == 0

    run_all("first")
    run_all("second", "--only", "tifffile")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n\n<!--") and text.endswith(f"{MARKS[1]}after\n")
    rows = [line.split(" | ")[:2] for line in text.splitlines() if line[0:1] == "|"]
    told = ["second" if name.startswith("tifffile ") else "first" for name in NAMES]
    assert rows[2:] == [[f"| {n}", one] for n, one in zip(NAMES, told, strict=True)]
    assert told.count("second") == 1


def test_what_is_unknown_is_refused(tmp_path: Path, capsys) -> None:
    page = tmp_path / "page.md"
    page.write_text("no marks\n")
    for words, message in (
        (["--only", "paint"], "invalid choice: 'paint' (choose from"),
        (["--only", "tifffile", "--page", str(page)], "expected the lines"),
    ):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(what_tools_write, "measure", lambda tool: [])
            main(words)
        assert message in capsys.readouterr().err


def test_page_has_the_rows_of_every_tool() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text.partition(MARKS[0])[2].partition(MARKS[1])[0].splitlines()
    assert {line.split(" | ")[0][2:] for line in table[2:]} == {*NAMES}
    assert {line.count(" | ") + 1 for line in table} == {len(HEAD)}
