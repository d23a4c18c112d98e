"""The command that runs the notebooks and stores them in one normal form."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from tools import refresh_notebooks
from tools.refresh_notebooks import (
    LARGEST_FIGURE,
    METADATA,
    check_outputs,
    find_leak,
    find_notebooks,
    give_ids,
    main,
    merge_stdout,
    normalise,
    read_notebook,
    shrink_png,
)


def store(folder: Path, name: str, *sources: str) -> Path:
    """Write a notebook of code cells under a line of Markdown."""
    cells = [new_markdown_cell("# 01 - Try"), *map(new_code_cell, sources)]
    path = folder / name
    nbformat.write(new_notebook(cells=cells), path)
    return path


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def refuse(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Refresh a notebook that must be refused and stay as it was; return the line."""
    before = path.read_bytes()
    with pytest.raises(SystemExit) as stop:
        main(["--folder", str(path.parent)])
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.out == ""
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    last = captured.err.splitlines()[-1]
    return last.removeprefix(f"refresh_notebooks: {path.name}")


def stdout(text: str) -> NotebookNode:
    return new_output("stream", name="stdout", text=text)


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def noise(height: int, width: int, seed: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return Image.fromarray(values.astype(np.uint8))


# In a kernel


def test_runs_in_the_folder_and_stores_one_form(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    (tmp_path / "beside.txt").write_text("found")
    first = "import os\nfrom pathlib import Path"
    second = 'print(Path("beside.txt").read_text(), os.environ["OMP_NUM_THREADS"])'
    third = "for i in range(3):\n    print(i, end='\\r', flush=True)\nprint('done')\ni"
    path = store(tmp_path, "01_try.ipynb", first, second, third)
    assert main(["01", "--folder", str(tmp_path)]) == 0
    content = load(path)
    code = content["cells"][1:]
    assert content["metadata"] == METADATA
    assert [cell["execution_count"] for cell in code] == [1, 2, 3]
    assert [cell["metadata"] for cell in code] == [{}, {}, {}]
    assert code[1]["outputs"][0]["text"] == ["found 3\n"]
    assert code[2]["outputs"][0]["text"] == ["done\n"]
    assert code[2]["outputs"][1]["data"] == {"text/plain": ["2"]}
    assert capsys.readouterr().out.startswith("01_try.ipynb: 4 cells, ")
    stored = path.read_bytes()
    assert main(["01_try.ipynb", "--folder", str(tmp_path)]) == 0
    assert path.read_bytes() == stored


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "def halve(a):\n    return a / 0\n\nhalve(1)",
            ", cell 3, at 'halve(1)', raised ZeroDivisionError: division by zero",
        ),
        ("import os\nos._exit(1)", ", cell 3: its kernel died"),
        ("import time\ntime.sleep(60)", ", cell 3 ran longer than 2 s"),
        ("import warnings\nwarnings.warn('old')", ", cell 3 wrote to stderr: "),
        ("object()", ", cell 3 shows '0x"),
        ("print('word ' * 90_000)", ": 451 KB with its outputs, expected at most 400"),
        (" ", ", cell 3: an empty code cell; delete it"),
    ],
)
def test_what_is_refused_stays_as_it_was(
    source: str, message: str, tmp_path, monkeypatch, capsys
) -> None:
    if "sleep" in source:
        monkeypatch.setattr(refresh_notebooks, "CELL_SECONDS", 2)
    line = refuse(store(tmp_path, "01_try.ipynb", "a = 1", source), capsys)
    assert line.startswith(message)


def test_tag_does_not_excuse_an_error(tmp_path, capsys) -> None:
    path = store(tmp_path, "01_try.ipynb", "raise ValueError('a\\nb')")
    notebook = nbformat.read(path, 4)
    notebook.cells[1].metadata.tags = ["raises-exception"]
    nbformat.write(notebook, path)
    assert refuse(path, capsys).endswith("raised ValueError: a b")


def test_edit_during_the_run_is_not_lost(tmp_path, capsys) -> None:
    source = "from pathlib import Path\nPath('01_try.ipynb').write_text('edited');"
    path = store(tmp_path, "01_try.ipynb", source)
    with pytest.raises(SystemExit):
        main(["--folder", str(tmp_path)])
    assert "01_try.ipynb: edited while it ran" in capsys.readouterr().err
    assert path.read_text() == "edited"


# Without a kernel


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        (("File ", "home", "ada", "x.py"), "text/plain"),
        (("", "Users", "ada"), "text/html"),
        (("in '", "any", "notebooks"), "stream"),
        (("(", "tmp", "tmpab12", "1_input.png"), "error"),
        (("lib/python3.12/site-packages/torch",), "text/plain"),
        ((r"C:\Users",), "stream"),
        (("<Thing at 0x7f3e2a>",), "text/html"),
        (("<Thing at 0x7F3E2A99>",), "error"),
    ],
)
def test_leaks_are_refused_in_every_kind_of_output(
    parts: tuple[str, ...], kind: str
) -> None:
    text = "/".join(parts)
    if kind == "stream":
        output = stdout(f"fine\n{text}\n")
    elif kind == "error":
        output = new_output("error", ename="E", evalue="", traceback=["fine", text])
    else:
        output = new_output("display_data", {kind: text})
    with pytest.raises(ValueError, match=r"^x, cell 1 shows .*; print something else"):
        check_outputs(new_code_cell(outputs=[output]), "x, cell 1")


def test_harmless_texts_and_pictures_pass() -> None:
    figure = new_output("display_data", {"image/png": "AA (/any/AA"})
    check_outputs(new_code_cell(outputs=[figure]), "x, cell 1")
    for text in (
        *("../test_inputs/1_input.png", "0x1f", "at work/home", "ID:\\n", "10x123456"),
        *("<td></td></tr>", "1 / 2 / 3", "https://example.org/a/b"),
    ):
        assert find_leak(text) is None, text


def test_neighbouring_stdout_is_merged_and_a_redrawn_line_keeps_its_last_state() -> (
    None
):
    figure = new_output("display_data", {"text/plain": "<Figure>"})
    merged = merge_stdout([stdout("a"), stdout("b\n"), figure, stdout("c\n")])
    assert [output.get("text") for output in merged] == ["ab\n", None, "c\n"]
    parts = [stdout("top\nstep 1\r"), stdout("step 2\rstep 3\n"), stdout("end\r\n")]
    assert merge_stdout(parts)[0]["text"] == "top\nstep 3\nend\r\n"


def test_large_figure_gets_256_colours_on_white_at_its_size(monkeypatch) -> None:
    figure = noise(160, 200, seed=1)
    figure.putalpha(Image.new("L", figure.size, 255))
    figure.paste((0, 0, 0, 0), (0, 0, 20, 20))
    data = png(figure)
    assert len(data) > LARGEST_FIGURE
    small = shrink_png(data)
    picture = Image.open(io.BytesIO(small)).convert("RGB")
    assert len(small) < len(data) / 2
    assert picture.size == (200, 160)
    assert len(picture.getcolors()) <= 256
    assert picture.getpixel((5, 5)) == (255, 255, 255)
    data = png(noise(20, 20, seed=3))
    assert shrink_png(data) == data  # small enough
    monkeypatch.setattr(refresh_notebooks, "LARGEST_FIGURE", 0)
    data = png(Image.new("1", (8, 8)))
    assert shrink_png(data) == data  # would grow


def test_ids_are_kept_or_counted() -> None:
    ids = ["good_1", "not good", "good_1", "cell-05", None, ""]
    cells = [{} if name is None else {"id": name} for name in ids]
    give_ids(cells)
    wanted = ["good_1", "cell-02", "cell-03", "cell-05", "cell-05-b", "cell-06"]
    assert [cell["id"] for cell in cells] == wanted


def test_normal_form_keeps_what_counts() -> None:
    figure = base64.b64encode(png(noise(20, 20, seed=3))).decode("ascii")
    code = new_code_cell("1", execution_count=7)
    code.outputs = [new_output("execute_result", {"image/png": f"{figure}\n"})]
    code.metadata.update(execution={}, jupyter={"source_hidden": True}, tags=["answer"])
    notebook = new_notebook(cells=[code])
    notebook.metadata.update(widgets={}, title="x")
    normalise(notebook)
    assert notebook.metadata == METADATA
    assert code.metadata == {"jupyter": {"source_hidden": True}, "tags": ["answer"]}
    assert (code.execution_count, code.outputs[0].execution_count) == (1, 1)
    assert code.outputs[0]["data"]["image/png"] == figure


# Bad input


def test_old_notebook_without_ids_is_read(tmp_path) -> None:
    path = store(tmp_path, "01_try.ipynb", "1")
    content = load(path) | {"nbformat_minor": 4}
    for cell in content["cells"]:
        del cell["id"]
    path.write_text(json.dumps(content))
    assert [cell.id for cell in read_notebook(path).cells] == ["cell-01", "cell-02"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "01_a.ipynb: not a notebook"),
        ("[1]", "01_a.ipynb: not a notebook"),
        ('{"nbformat": 4}', "01_a.ipynb: not a notebook .*'cells'"),
        ('{"nbformat": 3, "cells": []}', "01_a.ipynb: notebook format 3, expected 4"),
    ],
)
def test_file_that_is_no_notebook_is_refused(tmp_path, text, message) -> None:
    path = tmp_path / "01_a.ipynb"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_notebook(path)


def test_names_are_beginnings(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no notebook"):
        find_notebooks(tmp_path, [])
    for name in ("01_a", "02_b", "02_c"):
        (tmp_path / f"{name}.ipynb").touch()
    everything = find_notebooks(tmp_path, [])
    assert [path.stem for path in everything] == ["01_a", "02_b", "02_c"]
    assert find_notebooks(tmp_path, ["notebooks/02_b.ipynb"]) == [everything[1]]
    assert find_notebooks(tmp_path, ["02_c", "01"]) == [everything[2], everything[0]]
    with pytest.raises(ValueError, match=r"02: 2 notebooks begin so.*02_b.*02_c"):
        find_notebooks(tmp_path, ["02"])
    with pytest.raises(ValueError, match=r"05: 0 notebooks begin so, not 1: 01_a"):
        find_notebooks(tmp_path, ["05"])
