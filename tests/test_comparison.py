"""The comparison of the notebooks: planted changes fail, harmless ones pass."""

import base64
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import comparison
import matplotlib
import nbformat
import numpy as np
import pytest
from comparison import AMOUNT, WIDEST, Allowed, compare_cells, compare_pictures
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

import ui_segmentation_system as ui
from tools.refresh_notebooks import shrink_png

FOLDER = Path(__file__).parents[1]
NONE, TRAINED = [], ["tolerance=0.02", "counts=0.05"]


@pytest.mark.parametrize(
    ("stored", "new", "tags", "agrees"),
    [
        ("IoU 0.81", "IoU 0.81", NONE, True),
        ("IoU 0.81", "IoU 0.82", NONE, False),
        ("IoU 0.81", "IoU 0.82", TRAINED, True),
        ("IoU 0.81", "IoU 0.83", TRAINED, True),
        ("IoU 0.81", "IoU 0.84", TRAINED, False),
        ("IoU 0.81", "IoU 0.82", ["counts=0.05"], False),
        ("IoU 1.00", "IoU 0.99", TRAINED, True),
        # A percentage is a fraction, with or without a space before the sign.
        ("38% wrong", "40% wrong", TRAINED, True),
        ("38% wrong", "41% wrong", TRAINED, False),
        ("38.1 % wrong", "38.9 % wrong", TRAINED, True),
        ("38% wrong", "0.38 wrong", TRAINED, False),
        # Whole numbers are counts: exact, or a share of the stored one.
        ("best epoch 7", "best epoch 8", ["tolerance=0.9"], False),
        ("100 nuclei", "105 nuclei", TRAINED, True),
        ("100 nuclei", "106 nuclei", TRAINED, False),
        ("1,200 nuclei", "1,250 nuclei", TRAINED, True),
        ("[[940, 61]]", "[[950, 60]]", TRAINED, True),
        ("0 found", "1 found", TRAINED, False),
        # What is no small change, whatever the tags say.
        ("gain 0.01", "gain -0.01", TRAINED, False),
        ("gain -0.01", "gain 0.00", TRAINED, True),
        ("loss 0.01", "loss nan", TRAINED, False),
        ("loss 0.01 0.02", "loss 0.01", TRAINED, False),
        ("loss 0.01", "loss 0.01 0.02", TRAINED, False),
        ("loss 0.50", "loss 0.5", TRAINED, False),
        ("loss 0.01", "loss  0.01", TRAINED, False),
        ("IoU 0.81: True", "IoU 0.82: False", TRAINED, False),
        ("a 0.81\nb 0.5", "a 0.81", TRAINED, False),
        # Names and versions are words.
        ("um_000003.png", "um_000004.png", TRAINED, False),
        ("256x224", "257x224", TRAINED, False),
        ("torch 2.15.0", "torch 2.15.1", TRAINED, False),
        ("float32", "float16", TRAINED, False),
        # Layout: a wider number takes the place of spaces, and only there.
        ("| 98 |", "|103 |", ["counts=0.1"], True),
        ("| 98 |", "| 103 |", ["counts=0.1"], True),
        ("| 98  |", "| 103   |", ["counts=0.1"], False),
        ("loss 2e-05", "loss 3.1e-05", TRAINED, True),
        ("loss 2e-05", "loss 3.1e-01", TRAINED, False),
        ("range 3-5", "range 3-6", TRAINED, False),
        ("-0.50 to 0.50", "-0.49 to 0.51", TRAINED, True),
    ],
)
def test_texts(stored: str, new: str, tags: list[str], agrees: bool) -> None:
    faults = compare_cells([{"stdout": stored}], [{"stdout": new}], tags)
    assert (not faults) is agrees, faults


def test_the_fault_names_both_numbers_and_the_tolerance() -> None:
    (fault,) = compare_cells(
        [{"stdout": "a\nIoU 0.81\n"}], [{"stdout": "a\nIoU 0.91\n"}], TRAINED
    )
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


@pytest.mark.parametrize(
    "tag",
    [
        *("tolerance=", "tolerance=0", "tolerance=2", "tolerance=-0.1"),
        *("tolerence=0.1", f"figure={WIDEST + 0.01:.2f}"),
        *("left-out=figure", "left-out=all: why not"),
    ],
)
def test_a_tag_that_says_nothing_clear_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match=f"{tag!r}: expected"):
        comparison.read_tags(["hide-input", tag])


def test_tags() -> None:
    tags = ["counts=.05", "figure=0.1", "writes=a.gif", "left-out=text: its times"]
    assert comparison.read_tags(tags) == Allowed(0, 0.05, 0.1, ("a.gif",), "text")


def curves(
    heights: tuple[float, ...] = (0.9, 0.6),
    *,
    dots: float | None = None,
    **options: str,
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


FIGURES: dict[str, tuple[Callable[[], bytes], Callable[[], bytes]]] = {
    "a curve is missing": (curves, lambda: curves((0.9,))),
    "a curve went elsewhere": (curves, lambda: curves((0.9, 0.3))),
    "dots are missing": (lambda: curves(dots=0.2), curves),
    "dots went elsewhere": (lambda: curves(dots=0.2), lambda: curves(dots=0.5)),
    "another picture": (lambda: panels(1, 2), lambda: panels(1, 3)),
    "panels are swapped": (lambda: panels(1, 2), lambda: panels(2, 1)),
    "another size": (lambda: panels(1, 2), lambda: panels(1)),
    "a picture, not curves": (lambda: panels(1, 2), lambda: curves()),
}


@pytest.mark.parametrize("figure", [0.0, WIDEST])
@pytest.mark.parametrize("case", FIGURES)
def test_another_figure_fails_at_the_widest_tag_too(case: str, figure: float) -> None:
    stored, new = (draw() for draw in FIGURES[case])
    assert list(compare_pictures(stored, new, figure))
    assert list(compare_pictures(new, stored, figure))
    assert not list(compare_pictures(new, new, figure))


@pytest.mark.parametrize(
    "options",
    [{"text.hinting": "none"}, {"text.antialiased": "False"}, {"path.snap": "False"}],
    ids=str,
)
@pytest.mark.parametrize("figure", [0.0, 0.15])
def test_antialiasing_of_another_machine_passes(
    options: dict[str, str], figure: float
) -> None:
    stored, new = curves(dots=0.2), curves(dots=0.2, **options)
    assert stored != new
    assert not list(compare_pictures(stored, new, figure))


def test_trained_dots_may_move_a_little_with_the_tag() -> None:
    stored, new = curves(dots=0.20), curves(dots=0.23)
    assert list(compare_pictures(stored, new))
    assert not list(compare_pictures(stored, new, 0.1))


def test_a_stored_figure_of_256_colours_agrees_with_the_new_one() -> None:
    stored = shrink_png(panels(1, 2))
    assert stored != panels(1, 2)
    outputs = [
        [{"data": {"image/png": base64.b64encode(data).decode()}}]
        for data in (stored, panels(1, 2), panels(1, 3))
    ]
    assert not compare_cells(outputs[0], outputs[1], NONE)
    assert compare_cells(outputs[0], outputs[2], NONE)
    assert not compare_cells(outputs[0], outputs[2], ["left-out=figure: times"])
    assert compare_cells(outputs[0], outputs[2], ["left-out=text: times"])
    assert compare_cells(outputs[0], [], ["left-out=figure: times"])


def test_gifs_frame_by_frame(tmp_path: Path) -> None:
    frames = [Image.open(io.BytesIO(panels(number))) for number in (1, 2, 3)]
    variants = {
        "stored": (frames, 100),
        "swapped": ([frames[0], frames[2], frames[1]], 100),
        "short": (frames[:2], 100),
        "slow": (frames, 200),
    }
    files = {}
    for name, (pictures, duration) in variants.items():
        ui.save_gif(pictures, tmp_path / "a.gif", duration)
        files[name] = (tmp_path / "a.gif").read_bytes()
    for name, data in files.items():
        agrees = not list(compare_pictures(files["stored"], data, 0.1))
        assert agrees is (name == "stored"), name


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
    draw = (
        "import matplotlib.pyplot as plt\n"
        "%matplotlib inline\n"
        "plt.plot([0, 1], [0, 1])\n"
        "plt.show()"
    )
    line = base64.b64encode(curves()).decode()
    cells = [
        ("print('IoU', 0.815)", TRAINED, new_output("stream", text="IoU 0.812\n")),
        ("print('IoU', 0.9)", TRAINED, new_output("stream", text="IoU 0.5\n")),
        (
            draw,
            NONE,
            new_output(
                "display_data",
                {"image/png": line, "text/plain": "<Figure size 640x480 with 1 Axes>"},
            ),
        ),
    ]
    book = new_notebook(
        cells=[
            new_code_cell(
                source, metadata={"tags": tags}, outputs=[output], execution_count=count
            )
            for count, (source, tags, output) in enumerate(cells, 1)
        ]
    )
    nbformat.write(book, tmp_path / "01_a.ipynb")
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q"]
    command += ["-p", "no:cacheprovider", str(tmp_path), f"--rootdir={tmp_path}"]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(FOLDER), "NO_COLOR": "1"},
    )
    report = result.stdout
    assert "2 failed, 1 passed" in report, report
    for part in ("Cell 1", "0.5 was stored, now 0.9", "tolerance=0.02", "Cell 2"):
        assert part in report
    assert f"{AMOUNT} is allowed" in report or "size" in report
