"""The command that runs the notebooks and stores them in one normal form."""

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import comparison
import nbformat
import numpy as np
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from tools import refresh_notebooks as refresh

NAME = "01_try.ipynb"


def store(folder: Path, *sources: str) -> Path:
    """Write a notebook of code cells under a line of Markdown."""
    cells = [new_markdown_cell("# 01 - Try"), *map(new_code_cell, sources)]
    nbformat.write(new_notebook(cells=cells), folder / NAME)
    return folder / NAME


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def stdout(text: str) -> NotebookNode:
    return new_output("stream", name="stdout", text=text)


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def noise(height: int, width: int) -> Image.Image:
    values = np.random.default_rng(1).integers(0, 256, (height, width, 3))
    return Image.fromarray(values.astype(np.uint8))


@pytest.mark.filterwarnings("ignore:Cell is missing an id:Warning")
@pytest.mark.filterwarnings("ignore:Non-unique cell id:Warning")
def test_runs_in_the_folder_and_stores_one_form(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    (tmp_path / "beside.txt").write_text("found")
    first = "import os\nfrom pathlib import Path"
    second = 'print(Path("beside.txt").read_text(), os.environ["OMP_NUM_THREADS"])'
    third = "for i in range(3):\n    print(i, end='\\r', flush=True)\nprint('done')\ni"
    path = store(tmp_path, first, second, third)
    notebook = load(path) | {"nbformat_minor": 4}  # an old one, without some ids
    del notebook["cells"][0]["id"]
    notebook["cells"][2]["id"] = kept = notebook["cells"][1]["id"]
    notebook["cells"][2]["metadata"] = {"tags": ["close=0.1"], "collapsed": True}
    path.write_text(json.dumps(notebook))
    assert refresh.main(["01", "--folder", str(tmp_path)]) == 0
    notebook = load(path)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == 4 and ids[1] == kept
    code = notebook["cells"][1:]
    assert notebook["metadata"] == refresh.METADATA
    assert [cell["execution_count"] for cell in code] == [1, 2, 3]
    assert [cell["metadata"] for cell in code] == [{}, {"tags": ["close=0.1"]}, {}]
    assert code[1]["outputs"][0]["text"] == ["found 3\n"]
    assert code[2]["outputs"][0]["text"] == ["done\n"]
    assert code[2]["outputs"][1]["data"] == {"text/plain": ["2"]}
    assert capsys.readouterr().out.startswith(f"{NAME}: 4 cells, ")
    stored = path.read_bytes()
    assert refresh.main([NAME, "--folder", str(tmp_path)]) == 0
    assert path.read_bytes() == stored


def test_the_kernel_is_of_this_python(tmp_path: Path, monkeypatch, capsys) -> None:
    foreign = tmp_path / "kernels" / "python3" / "kernel.json"
    foreign.parent.mkdir(parents=True)
    kernel = {"argv": ["no such python"], "display_name": "Python 3", "language": "R"}
    foreign.write_text(json.dumps(kernel))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    path = store(tmp_path, f"import sys\nprint(sys.prefix == {sys.prefix!r})")
    kernels: list[Any] = []
    keep = refresh.AsyncKernelManager
    monkeypatch.setattr(
        refresh,
        "AsyncKernelManager",
        lambda **given: kernels.append(keep(**given)) or kernels[-1],
    )
    assert refresh.main(["--folder", str(tmp_path)]) == 0
    assert load(path)["cells"][1]["outputs"][0]["text"] == ["True\n"]
    assert len(kernels) == 1 and not kernels[0].has_kernel  # and it has ended


FAILS = "def halve(a):\n    return a / 0\n\nhalve(1)"
LEFT = "from pathlib import Path\nPath('01_try.ipynb').write_text('edited');"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (FAILS, ", cell 2, at 'halve(1)', raised ZeroDivisionError: division by zero"),
        ("raise ValueError('a\\nb')", "raised ValueError: a b"),
        ("import os\nos._exit(1)", ", cell 2: its kernel died"),
        ("import time\ntime.sleep(60)", ", cell 2 ran longer than 3 s"),
        ("import warnings\nwarnings.warn('old')", ", cell 2 wrote to stderr: "),
        ("object()", ", cell 2 shows '0x"),
        ("print('word ' * 90_000)", ": 451 KB, expected 400; show fewer figures"),
        (" ", ", cell 2: an empty code cell; delete it"),
        (LEFT, ": edited while it ran and left so"),
    ],
)
def test_what_is_refused_stays_as_it_was(
    source: str, message: str, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(refresh, "CELL_SECONDS", 3)
    path = store(tmp_path, source)
    notebook = load(path)
    notebook["cells"][1]["metadata"]["tags"] = ["raises-exception"]  # excuses nothing
    path.write_text(json.dumps(notebook))
    before = "edited" if source == LEFT else path.read_text()
    with pytest.raises(SystemExit, match="2"):
        refresh.main(["--folder", str(tmp_path)])
    captured = capsys.readouterr()
    line = captured.err.splitlines()[-1]
    assert line.startswith(f"python -m tools.refresh_notebooks: {NAME}")
    assert message in line and captured.out == ""
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


# Written so that this file shows none itself.
LEAKS = ["File |home|ada|x.py", "in '|any|notebooks", "(|tmp|ab12|1_input.png", "|A|b"]
LEAKS += ["lib/python3.12/site-packages/torch", r"C:\Users", "<Thing at 0x7f3e2a>"]
FINE = ["../test_inputs/1_input.png", "0x1f", "at work/home", "ID:\\n", "10x123456"]
FINE += ["<td></td></tr>", "1 / 2 / 3", "https://example.org/a/b", "0x7F3E2"]


@pytest.mark.parametrize("text", [leak.replace("|", "/") for leak in LEAKS])
def test_leaks_are_refused_in_every_kind_of_output(text: str) -> None:
    outputs = [
        *(new_output("display_data", {kind: text}) for kind in ("text/plain", "a/b")),
        new_output("error", ename="E", evalue="", traceback=["fine", text]),
        stdout(f"fine\n{text}\n"),
    ]
    for output in outputs:
        with pytest.raises(ValueError, match=r"^x shows .*, of this machine only"):
            refresh.check_outputs(new_code_cell(outputs=[output]), "x")
    figure = new_output("display_data", {"image/png": text})
    refresh.check_outputs(new_code_cell(outputs=[figure, *map(stdout, FINE)]), "x")


def test_a_large_figure_gets_256_colours_on_white_at_its_size(monkeypatch) -> None:
    figure = noise(160, 200)
    figure.putalpha(Image.new("L", figure.size, 255))
    figure.paste((0, 0, 0, 0), (0, 0, 20, 20))
    data = png(figure)
    assert len(data) > comparison.LARGEST_FIGURE
    small = comparison.shrink_png(data)
    picture = Image.open(io.BytesIO(small)).convert("RGB")
    assert len(small) < len(data) / 2
    assert picture.size == (200, 160) and len(picture.getcolors()) <= 256
    assert picture.getpixel((5, 5)) == (255, 255, 255)
    data = png(noise(20, 20))
    assert comparison.shrink_png(data) == data  # small enough
    monkeypatch.setattr(comparison, "LARGEST_FIGURE", 0)
    data = png(Image.new("1", (8, 8)))
    assert comparison.shrink_png(data) == data  # would grow


def test_normal_form_keeps_what_counts() -> None:
    figure = base64.b64encode(png(noise(20, 20))).decode("ascii")
    code = new_code_cell("1", execution_count=7)
    # Neighbours are merged, and of a line that is redrawn the last state is kept.
    code.outputs = [stdout("top\nstep 1\r"), stdout("step 2\rstep 3\n")]
    code.outputs += [new_output("execute_result", {"image/png": f"{figure}\n"})]
    code.outputs += [stdout("end\r\n")]
    code.metadata.update(execution={}, jupyter={"source_hidden": True}, tags=["answer"])
    notebook = new_notebook(cells=[code, new_markdown_cell("Größe")])
    notebook.metadata.update(widgets={}, title="x")
    refresh.normalise(notebook)
    assert notebook.metadata == refresh.METADATA
    assert code.metadata == {"jupyter": {"source_hidden": True}, "tags": ["answer"]}
    assert (code.execution_count, code.outputs[1].execution_count) == (1, 1)
    texts = [output.get("text") for output in code.outputs]
    assert texts == ["top\nstep 3\n", None, "end\r\n"]
    assert code.outputs[1]["data"]["image/png"] == figure


def test_what_is_to_be_predicted_is_folded() -> None:
    question = new_markdown_cell("How many? **Predict\nfirst:** 2 or 3?")
    silent, answer, other = (new_code_cell(str(n)) for n in range(3))
    answer.outputs, other.outputs = [stdout("3")], [stdout("4")]
    other.metadata["jupyter"] = {"outputs_hidden": True}  # by hand: not kept
    refresh.normalise(new_notebook(cells=[question, silent, answer, other]))
    hidden = [cell.metadata.get("jupyter") for cell in (silent, answer, other)]
    assert hidden == [None, {"outputs_hidden": True}, None]


@pytest.mark.parametrize(
    "text",
    ["", "[1]", '{"nbformat": 4, "cells": [1]}', '{"nbformat": 4}', '{"nbformat": 3}'],
)
def test_file_that_is_no_notebook_is_refused(tmp_path, text) -> None:
    path = tmp_path / NAME
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{NAME}: expected a notebook, got .*Error: "):
        refresh.read_notebook(path)


def test_names_are_beginnings(tmp_path) -> None:
    find = refresh.find_notebooks
    for name in ("01_a", "02_b", "02_c"):
        (tmp_path / f"{name}.ipynb").touch()
    everything = find(tmp_path, [])
    assert [path.stem for path in everything] == ["01_a", "02_b", "02_c"]
    assert find(tmp_path, ["notebooks/02_b.ipynb"]) == [everything[1]]
    assert find(tmp_path, ["02_c", "01"]) == [everything[2], everything[0]]
    with pytest.raises(ValueError, match=r"02: 2 notebooks begin so.*02_b.*02_c"):
        find(tmp_path, ["02"])
    with pytest.raises(ValueError, match=r"05: 0 notebooks begin so, not 1: 01_a"):
        find(tmp_path, ["05"])
