"""The comparison of the notebooks: planted changes fail, harmless ones pass."""

import base64
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import comparison
import matplotlib
import nbformat
import numpy as np
import pytest
from comparison import (
    AMOUNT,
    WIDEST,
    Allowed,
    compare_cells,
    compare_pictures,
    shrink_png,
)
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

import ui_segmentation_system as ui

FOLDER = Path(__file__).parents[1]
NONE, TRAINED = [], ["tolerance=0.02", "counts=0.05"]


# What was stored > what is new, without tags, and with those of a trained network.
EXACT_AGREES = "IoU 0.81 > IoU 0.81"
EXACT_DIFFERS = "IoU 0.81 > IoU 0.82; 100 nuclei > 101 nuclei"
# A percentage is a fraction, with or without a space before the sign. Whole numbers are
# counts: a share of the stored one. A wider number takes the place of spaces.
AGREES = """IoU 0.81 > IoU 0.82; IoU 0.81 > IoU 0.83; IoU 1.00 > IoU 0.99;
38% wrong > 40% wrong; 38.1 % wrong > 38.9 % wrong; -0.50 to 0.50 > -0.49 to 0.51;
100 nuclei > 105 nuclei; 1,200 nuclei > 1,250 nuclei; [[940, 61]] > [[950, 60]];
gain -0.01 > gain 0.00; loss 2e-05 > loss 3.1e-05;
| 98 | > |102 |; | 98 | > | 102 |"""
# Last what is no small change, whatever the tags say: signs, digits, words and names.
DIFFERS = """IoU 0.81 > IoU 0.84; 38% wrong > 41% wrong; 38% wrong > 0.38 wrong;
100 nuclei > 106 nuclei; 0 found > 1 found; loss 2e-05 > loss 3.1e-01;
| 98  | > | 102   |; gain 0.01 > gain -0.01; loss 0.01 > loss nan;
loss 0.01 0.02 > loss 0.01; loss 0.01 > loss 0.01 0.02; loss 0.50 > loss 0.5;
loss 0.01 > loss  0.01; IoU 0.81: True > IoU 0.82: False; a 0.81\nb 0.5 > a 0.81;
um_000003.png > um_000004.png; 256x224 > 257x224; torch 2.15.0 > torch 2.15.1;
float32 > float16; range 3-5 > range 3-6"""
TEXTS = [
    (*case.split(" > "), tags, agrees)
    for cases, tags, agrees in (
        *((EXACT_AGREES, NONE, True), (EXACT_DIFFERS, NONE, False)),
        *((AGREES, TRAINED, True), (DIFFERS, TRAINED, False)),
        ("IoU 0.81 > IoU 0.82", ["counts=0.05"], False),
        ("best epoch 7 > best epoch 8", ["tolerance=0.9"], False),
    )
    for case in re.split(r";\s", cases)
]


@pytest.mark.parametrize(("stored", "new", "tags", "agrees"), TEXTS)
def test_texts(stored: str, new: str, tags: list[str], agrees: bool) -> None:
    faults = compare_cells([{"stdout": stored}], [{"stdout": new}], tags)
    assert (not faults) is agrees, faults


def test_the_fault_names_both_numbers_and_the_tolerance() -> None:
    (fault,) = compare_cells([{"stdout": "a\n0.81"}], [{"stdout": "a\n0.91"}], TRAINED)
    for part in ("line 2", "0.81", "0.91", "tolerance=0.02"):
        assert part in fault
    (fault,) = compare_cells([{"stdout": "a b"}], [{"stdout": "a c"}], TRAINED)
    assert "'a b'" in fault and "'a c'" in fault


@pytest.mark.parametrize(
    ("stored", "new"),
    [
        ([{"stdout": "a"}], []),
        ([], [{"stdout": "a"}]),
        ([{"stdout": "a"}], [{"stdout": "a"}, {"stderr": "warning"}]),
        ([{"data": {"text/plain": "a"}}], [{"data": {"text/html": "a"}}]),
        ([{"data": {"text/html": "<b>1</b>"}}], [{"data": {"text/html": "<b>2</b>"}}]),
        ([{"ename": "KeyError"}], [{"ename": "IndexError"}]),
    ],
)
@pytest.mark.parametrize("tags", [NONE, TRAINED])
def test_outputs_of_another_kind(stored: list, new: list, tags: list[str]) -> None:
    assert compare_cells(stored, new, tags)
    assert not compare_cells(stored, stored, tags)


def test_tags() -> None:
    tags = ["counts=.05", "figure=0.1", "writes=a.gif", "left-out=text: its times"]
    wanted = Allowed(0, 0.05, 0.1, ("a.gif",), "text")
    assert comparison.read_tags(["hide-input", *tags]) == wanted
    for tag in (
        *("tolerance=", "tolerance=0", "tolerance=2", "tolerance=-0.1", "tolerence=.1"),
        *(f"figure={WIDEST + 0.01:.2f}", "left-out=figure", "left-out=all: why not"),
    ):
        with pytest.raises(ValueError, match=f"{tag!r}: expected"):
            comparison.read_tags([tag])


def curves(
    heights: tuple[float, ...] = (0.9, 0.6), dots: float | None = None, **options: str
) -> bytes:
    """A small figure of curves, which end at these heights, and dots."""
    with matplotlib.rc_context({"figure.dpi": 80, **options}):
        figure = Figure(figsize=(5, 2), layout="constrained")
        axis = figure.subplots()
        for number, height in enumerate(heights):
            y = height * (1 - np.exp(-np.linspace(0, 5, 30)))
            axis.plot(y, linewidth=1, color=f"C{number}", label=f"run {number}")
        if dots is not None:
            axis.scatter([5, 15, 25], [dots, dots + 0.1, dots + 0.2], color="0.2")
        axis.set(ylim=(0, 1.05), xlabel="steps", ylabel="IoU")
        file = io.BytesIO()
        figure.savefig(file, format="png")
    return file.getvalue()


def panels(*numbers: int) -> bytes:
    """Screenshots of these numbers side by side."""
    paths = [FOLDER / f"test_inputs/{number}_input.png" for number in numbers]
    file = io.BytesIO()
    rows = np.hstack([np.asarray(ui.load_image(path)) for path in paths])
    Image.fromarray(rows).save(file, "PNG")
    return file.getvalue()


# Curves, by the arguments, or panels, by their numbers: stored, and new.
FIGURES = {
    "a curve is missing": ({}, {"heights": (0.9,)}),
    "a curve went elsewhere": ({}, {"heights": (0.9, 0.3)}),
    "dots are missing": ({"dots": 0.2}, {}),
    "dots went elsewhere": ({"dots": 0.2}, {"dots": 0.5}),
    "another picture": ((1, 2), (1, 3)),
    "panels are swapped": ((1, 2), (2, 1)),
    "another size": ((1, 2), (1,)),
    "a picture, not curves": ((1, 2), {}),
}


@pytest.mark.parametrize("figure", [0.0, WIDEST])
@pytest.mark.parametrize("case", FIGURES)
def test_another_figure_fails_at_the_widest_tag_too(case: str, figure: float) -> None:
    stored, new = (
        curves(**given) if isinstance(given, dict) else panels(*given)
        for given in FIGURES[case]
    )
    assert list(compare_pictures(stored, new, figure))
    assert list(compare_pictures(new, stored, figure))
    assert not list(compare_pictures(new, new, figure))


@pytest.mark.parametrize("option", ["text.hinting", "text.antialiased", "path.snap"])
@pytest.mark.parametrize("figure", [0.0, 0.15])
def test_antialiasing_of_another_machine_passes(option: str, figure: float) -> None:
    value = "none" if option == "text.hinting" else "False"
    stored, new = curves(dots=0.2), curves(dots=0.2, **{option: value})
    assert stored != new
    assert not list(compare_pictures(stored, new, figure))
    # Trained dots may move a little with the tag.
    moved = curves(dots=0.23)
    assert bool(list(compare_pictures(stored, moved, figure))) is not bool(figure)


def test_a_stored_figure_of_256_colours_agrees_with_the_new_one() -> None:
    stored = shrink_png(panels(1, 2))
    assert stored != panels(1, 2)
    outputs, same, other = (
        [{"data": {"image/png": base64.b64encode(data).decode()}}]
        for data in (stored, panels(1, 2), panels(1, 3))
    )
    left_out = ["left-out=figure: times"]
    assert not compare_cells(outputs, same, NONE)
    assert not compare_cells(outputs, other, left_out)
    for new, tags in ((other, NONE), (other, ["left-out=text: times"]), ([], left_out)):
        assert compare_cells(outputs, new, tags)


def test_gifs_frame_by_frame(tmp_path: Path) -> None:
    first, *others = (Image.open(io.BytesIO(panels(n))) for n in (1, 2, 3))
    stored = [first, *others]
    files = []
    for frames, duration in (
        *((stored, 100), ([first, *others[::-1]], 100), (stored[:2], 100)),
        (stored, 200),
    ):
        ui.save_gif(frames, tmp_path / "a.gif", duration)
        files.append((tmp_path / "a.gif").read_bytes())
    agree = [not list(compare_pictures(files[0], data, 0.1)) for data in files]
    assert agree == [True, False, False, False]


def test_what_a_cell_writes_is_compared_with_the_committed_file(tmp_path: Path) -> None:
    kept, written = tmp_path / "kept", tmp_path / "written"
    for folder in (kept, written):
        folder.mkdir()
        (folder / "a.png").write_bytes(panels(1))
    assert not compare_cells([], [], ["writes=a.png"], written, kept)
    (written / "a.png").write_bytes(panels(2))
    (fault,) = compare_cells([], [], ["writes=a.png"], written, kept)
    assert "test_outputs/a.png" in fault


def test_pytest_nbval_uses_it(tmp_path: Path) -> None:
    for name in ("conftest.py", "comparison.py"):
        shutil.copy(FOLDER / "notebooks" / name, tmp_path)
    # The two files are enough: there are no tools in another project.
    (tmp_path / "tools.py").write_text("raise ImportError")
    figure = base64.b64encode(curves()).decode()
    data = {"image/png": figure, "text/plain": "<Figure>"}
    outputs = {
        "print('IoU', 0.815)": new_output("stream", text="IoU 0.812\n"),
        "print('IoU', 0.9)": new_output("stream", text="IoU 0.5\n"),
        "import matplotlib.pyplot as plt\n%matplotlib inline\n"
        "plt.plot([0, 1], [0, 1])\nplt.show()": new_output("display_data", data),
    }
    options = {"metadata": {"tags": TRAINED}, "execution_count": 1}
    cells = [new_code_cell(s, outputs=[o], **options) for s, o in outputs.items()]
    nbformat.write(new_notebook(cells=cells), tmp_path / "01_a.ipynb")
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q"]
    command += ["-p", "no:cacheprovider", str(tmp_path), f"--rootdir={tmp_path}"]
    env = os.environ | {"PYTHONPATH": "", "NO_COLOR": "1"}
    report = subprocess.run(command, stdout=-1, text=True, cwd=tmp_path, env=env).stdout
    assert "2 failed, 1 passed" in report, report
    for part in ("Cell 1", "0.5 was stored, now 0.9", "tolerance=0.02", "Cell 2"):
        assert part in report
    assert f"{AMOUNT} is allowed" in report or "size" in report
