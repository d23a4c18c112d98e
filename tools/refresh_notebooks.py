"""Run notebooks in a fresh kernel and store them in one normal form.

python -m tools.refresh_notebooks            # every lesson
python -m tools.refresh_notebooks 01 04      # some of them

A notebook that raises, warns, shows a path or address of this machine, or grows too
large is refused and stays as it was. Set OMP_NUM_THREADS to choose the threads.
"""

import argparse
import base64
import io
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import (
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
)
from nbformat import NotebookNode
from PIL import Image
from tqdm import tqdm

FOLDER = Path(__file__).parents[1] / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_METADATA = {"tags", "jupyter"}
CELL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
CELL_SECONDS = 300
LARGEST_FILE = 300_000
# Above it a figure gets 256 colours: half a dozen figures then fit into a lesson.
LARGEST_FIGURE = 50_000
# They differ from machine to machine: a stored output with one never compares equal.
MACHINE_PATH = re.compile(r"/(?:home|Users|work|tmp|root)/|site-packages|\bC:\\")
ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}")
# A bar that is drawn again and again on one line; only its last state is kept.
OVERWRITTEN = re.compile(r"^.*\r(?=[^\n])", re.MULTILINE)

# What colours a traceback in a terminal.
COLOUR = re.compile(r"\x1b\[[\d;]*m")


def find_leak(text: str) -> str | None:
    """Find what belongs to one machine only: a path or a memory address."""
    match = MACHINE_PATH.search(text) or ADDRESS.search(text)
    return match and match[0]


def output_texts(output: dict[str, Any]) -> Iterator[str]:
    """List the texts of an output: a stream, the forms of a result, a traceback."""
    yield _joined(output.get("text", ""))
    yield "\n".join(output.get("traceback", []))
    for kind, data in output.get("data", {}).items():
        if not kind.startswith("image/"):
            yield _joined(data)


def _joined(text: Any) -> str:
    """Join what a notebook's file may hold as a list of lines."""
    return "".join(text) if isinstance(text, list) else str(text)


def merge_stdout(outputs: Sequence[NotebookNode]) -> list[NotebookNode]:
    """Merge neighbouring stdout streams; of a redrawn line keep what stays visible."""
    merged: list[NotebookNode] = []
    for output in outputs:
        if merged and _is_stdout(merged[-1]) and _is_stdout(output):
            merged[-1]["text"] += output["text"]
        else:
            merged.append(output)
    for output in filter(_is_stdout, merged):
        output["text"] = OVERWRITTEN.sub("", output["text"])
    return merged


def _is_stdout(output: NotebookNode) -> bool:
    return output["output_type"] == "stream" and output["name"] == "stdout"


def shrink_png(data: bytes) -> bytes:
    """Reduce a large PNG to 256 colours at the same size, where that is smaller."""
    if len(data) <= LARGEST_FIGURE:
        return data
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    paper = Image.new("RGBA", picture.size, "white")
    flat = Image.alpha_composite(paper, picture).convert("RGB")
    buffer = io.BytesIO()
    flat.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return min(data, buffer.getvalue(), key=len)


def shrink_figure(output: NotebookNode) -> None:
    """Shrink the PNG of an output in place, if it has one."""
    figure = output.get("data", {}).get("image/png")
    if figure:
        small = shrink_png(base64.b64decode(figure))
        output["data"]["image/png"] = base64.b64encode(small).decode("ascii")


def give_ids(cells: Sequence[dict[str, Any]]) -> None:
    """Keep valid cell ids in place; give the other cells cell-01, cell-02 and so on."""
    taken: set[str] = set()
    nameless = []
    for number, cell in enumerate(cells, 1):
        if CELL_ID.fullmatch(str(cell.get("id", ""))) and cell["id"] not in taken:
            taken.add(cell["id"])
        else:
            nameless.append((number, cell))
    for number, cell in nameless:
        name = f"cell-{number:02d}"
        while name in taken:
            name += "-b"
        taken.add(name)
        cell["id"] = name


def normalise(notebook: NotebookNode) -> None:
    """Bring everything but the sources to its one form, in place."""
    notebook["metadata"] = nbformat.from_dict(METADATA)
    notebook["nbformat_minor"] = 5
    give_ids(notebook["cells"])
    for cell in notebook["cells"]:
        for key in set(cell["metadata"]) - CELL_METADATA:
            del cell["metadata"][key]
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for count, cell in enumerate(code, 1):
        cell["execution_count"] = count
        cell["outputs"] = merge_stdout(cell["outputs"])
        for output in cell["outputs"]:
            shrink_figure(output)
            if "execution_count" in output:
                output["execution_count"] = count


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook of format 4, with an id for every cell."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        cells = content["cells"]
        version = content["nbformat"]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{path.name}: not a notebook ({error!r}); save it again from JupyterLab"
        ) from None
    if version != 4:
        raise ValueError(
            f"{path.name}: notebook format {version}, expected 4; "
            "open it in JupyterLab and save it"
        )
    give_ids(cells)
    content["nbformat_minor"] = 5
    return nbformat.reads(json.dumps(content), as_version=4)


def place_of(path: Path, number: int) -> str:
    """Name a cell in messages; cells count from 1."""
    return f"{path.name}, cell {number}"


def describe_error(error: CellExecutionError) -> str:
    """Say in one line where in its cell an error arose, and its last line."""
    last_line = " ".join(f"{error.ename}: {error.evalue}".split())
    arrow = re.search(r"^-+> \d+ +(.+)$", COLOUR.sub("", error.traceback), re.MULTILINE)
    where = f", at {arrow[1].strip()!r}," if arrow else ""
    return f"{where} raised {last_line.rstrip(':')}"


def run_cell(client: NotebookClient, number: int, place: str) -> None:
    """Run a cell, numbered from 1; raise ValueError in one line when it fails."""
    cell = client.nb["cells"][number - 1]
    if cell["cell_type"] == "code" and not cell["source"].strip():
        raise ValueError(f"{place}: an empty code cell; delete it")
    try:
        client.execute_cell(cell, number - 1)
    except CellExecutionError as error:
        raise ValueError(f"{place}{describe_error(error)}") from None
    except CellTimeoutError:
        raise ValueError(f"{place} ran longer than {CELL_SECONDS} s") from None
    except DeadKernelError:
        raise ValueError(f"{place}: its kernel died (out of memory?)") from None


def run_cells(notebook: NotebookNode, path: Path) -> None:
    """Run all cells in a fresh kernel, in the notebook's folder, into their outputs."""
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        force_raise_errors=True,
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=False,
        extra_arguments=["--log-level=ERROR"],
    )
    numbers = range(1, len(notebook["cells"]) + 1)
    with client.setup_kernel():
        for number in tqdm(numbers, desc=path.stem, unit="cell"):
            place = place_of(path, number)
            run_cell(client, number, place)
            check_outputs(notebook["cells"][number - 1], place)


def check_outputs(cell: NotebookNode, place: str) -> None:
    """Raise ValueError for stderr, a path or an address in the outputs of a cell."""
    for output in cell.get("outputs", []):
        if output.get("name") == "stderr":
            line = output["text"].strip().splitlines()[:1]
            raise ValueError(f"{place} wrote to stderr: {' '.join(line)}")
        for leak in filter(None, map(find_leak, output_texts(output))):
            raise ValueError(
                f"{place} shows {leak!r}, which differs from machine to machine; "
                "print something else"
            )


def to_bytes(notebook: NotebookNode, name: str) -> bytes:
    """Write a notebook to the bytes of its file; raise ValueError if too many."""
    text = nbformat.writes(notebook).rstrip("\n") + "\n"
    data = text.encode("utf-8")
    if len(data) > LARGEST_FILE:
        raise ValueError(
            f"{name}: {len(data) / 1000:.0f} KB with its outputs, expected at most "
            f"{LARGEST_FILE // 1000}; show fewer or smaller figures"
        )
    return data


def put_in_place(data: bytes, path: Path) -> None:
    """Write a file beside its place and move it there."""
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def refresh(path: Path) -> str:
    """Run a notebook and store it; return a line about it, or raise ValueError."""
    start = time.perf_counter()
    before = path.read_bytes()
    notebook = read_notebook(path)
    run_cells(notebook, path)
    normalise(notebook)
    data = to_bytes(notebook, path.name)
    if path.read_bytes() != before:
        raise ValueError(f"{path.name}: edited while it ran and left so; refresh again")
    put_in_place(data, path)
    seconds = time.perf_counter() - start
    cells = len(notebook["cells"])
    return f"{path.name}: {cells} cells, {seconds:.1f} s, {len(data) / 1000:.0f} KB"


def find_notebooks(folder: Path, names: Sequence[str]) -> list[Path]:
    """Find notebooks by the beginnings of their names, such as 01; all if none."""
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"{folder}: no notebook (*.ipynb) there")
    return [_only_one(paths, name) for name in names] if names else paths


def _only_one(paths: Sequence[Path], name: str) -> Path:
    found = [path for path in paths if path.name.startswith(Path(name).name)]
    if len(found) != 1:
        there = ", ".join(path.name for path in found or paths)
        raise ValueError(f"{name}: {len(found)} notebooks begin so, not 1: {there}")
    return found[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="refresh_notebooks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", help="beginnings of file names, such as 01; all if none"
    )
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="folder of the notebooks"
    )
    options = parser.parse_args(argv)
    try:
        for path in find_notebooks(options.folder, options.names):
            print(refresh(path))
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
