"""Run notebooks in a fresh kernel and store them in one normal form.

python -m tools.refresh_notebooks            # every lesson
python -m tools.refresh_notebooks 01 04      # some of them

A notebook that raises, warns, shows a path or address of this machine, or grows too
large is refused and stays as it was. Set OMP_NUM_THREADS to choose the threads.
"""

import base64
import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.validator import normalize
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager
from tqdm import tqdm

from notebooks.comparison import shrink_png
from tools.command import Command

FOLDER = Path(__file__).parents[1] / "notebooks"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
METADATA = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
CELL_SECONDS = 300
LARGEST_FILE = 400_000
# A path from the root or a memory address: no other machine shows the same.
LEAK = re.compile(
    r"(?<![\w.<:/])/[\w.+-]+/[\w.+-]|file://|site-packages|\b[A-Z]:\\"
    r"|\b0x[0-9a-fA-F]{6,}"
)
# A bar that is drawn again and again on one line; only its last state is kept.
OVERWRITTEN = re.compile(r"^.*\r(?=[^\n])", re.MULTILINE)
COLOUR = re.compile(r"\x1b\[[\d;]*m")  # of a traceback in a terminal


def find_leak(text: str) -> str | None:
    """Find what belongs to one machine only: a path or a memory address."""
    return (match := LEAK.search(text)) and match[0]


def output_texts(output: dict[str, Any]) -> Iterator[str]:
    """List the texts of an output: a stream, the forms of a result, a traceback."""
    texts = [output.get("text", ""), "\n".join(output.get("traceback", []))]
    for kind, text in output.get("data", {}).items():
        texts += [] if kind.startswith("image/") else [text]
    for text in texts:  # as such or, in a file, as a list of lines
        yield "".join(text) if isinstance(text, list) else str(text)


def merge_stdout(outputs: Sequence[NotebookNode]) -> list[NotebookNode]:
    """Merge neighbouring stdout streams; of a redrawn line keep what stays visible."""
    merged: list[NotebookNode] = []
    for output in outputs:
        is_stdout = output.get("name") == "stdout"
        if is_stdout and merged and merged[-1].get("name") == "stdout":
            output["text"] = merged.pop()["text"] + output["text"]
        if is_stdout:
            output["text"] = OVERWRITTEN.sub("", output["text"])
        merged.append(output)
    return merged


def find_predicted(cells: Sequence[NotebookNode]) -> Iterator[NotebookNode]:
    """Find the outputs that a "Predict first" asks about: the next that are shown."""
    asked = False
    for cell in cells:
        if cell["cell_type"] == "markdown":
            asked |= "**Predict first" in cell["source"].replace("\n", " ")
        elif asked and cell["outputs"]:
            asked = False
            yield cell


def normalise(notebook: NotebookNode) -> None:
    """Bring all but the sources to one form, in place; fold what is to be predicted."""
    notebook["metadata"] = nbformat.from_dict(METADATA)
    for cell in notebook["cells"]:
        old, cell["metadata"] = cell["metadata"], NotebookNode()
        if "tags" in old:
            cell["metadata"]["tags"] = old["tags"]
        if old.get("jupyter", {}).get("source_hidden"):
            cell["metadata"]["jupyter"] = {"source_hidden": True}
    for cell in find_predicted(notebook["cells"]):
        cell["metadata"].setdefault("jupyter", {})["outputs_hidden"] = True
    code = (cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    for count, cell in enumerate(code, 1):
        cell["execution_count"] = count
        cell["outputs"] = merge_stdout(cell["outputs"])
        for output in cell["outputs"]:
            if "execution_count" in output:
                output["execution_count"] = count
            if figure := output.get("data", {}).get("image/png"):
                small = base64.b64encode(shrink_png(base64.b64decode(figure)))
                output["data"]["image/png"] = small.decode("ascii")


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook; cells without an id of their own get one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8")) | {"nbformat_minor": 5}
        _, content = normalize(content)
        nbformat.validate(content)
    except Exception as error:  # of many kinds, for what is no notebook
        what = f"{type(error).__name__}: {error}".split("\n")[0]
        expected = f"expected a notebook, got {what}; save it from JupyterLab"
        raise ValueError(f"{path.name}: {expected}") from None
    return nbformat.reads(json.dumps(content), as_version=4)


def run_cell(client: NotebookClient, number: int, place: str) -> None:
    """Run a cell, numbered from 1; raise ValueError in one line when it fails."""
    cell = client.nb["cells"][number - 1]
    if cell["cell_type"] == "code" and not cell["source"].strip():
        raise ValueError(f"{place}: an empty code cell; delete it")
    try:
        client.execute_cell(cell, number - 1)
    except CellTimeoutError:
        raise ValueError(f"{place} ran longer than {CELL_SECONDS} s") from None
    except DeadKernelError:
        raise ValueError(f"{place}: its kernel died (out of memory?)") from None
    except CellExecutionError as error:
        trace = COLOUR.sub("", error.traceback)
        arrow = re.search(r"^-+> \d+ +(.+)$", trace, re.MULTILINE)
        where = f", at {arrow[1].strip()!r}," if arrow else ""
        last_line = " ".join(f"{error.ename}: {error.evalue}".split()).rstrip(":")
        raise ValueError(f"{place}{where} raised {last_line}") from None


def check_outputs(cell: NotebookNode, place: str) -> None:
    """Raise ValueError for stderr, a path or an address in the outputs of a cell."""
    for output in cell.get("outputs", []):
        if output.get("name") == "stderr":
            line = output["text"].strip().splitlines()[:1]
            raise ValueError(f"{place} wrote to stderr: {' '.join(line)}")
        for leak in filter(None, map(find_leak, output_texts(output))):
            raise ValueError(f"{place} shows {leak!r}, of this machine only")


def refresh(path: Path) -> str:
    """Run a notebook in a fresh kernel, in its folder, and store it with its outputs.

    Returns a line about it; raises ValueError, and then leaves it as it was.
    """
    start, before = time.perf_counter(), path.read_bytes()
    notebook = read_notebook(path)
    # A kernel of this Python, whatever Jupyter calls python3.
    specs = {"kernel_spec_manager": NbvalKernelspecManager()}
    manager = AsyncKernelManager(kernel_name=CURRENT_ENV_KERNEL_NAME, **specs)
    options = {"km": manager, "timeout": CELL_SECONDS, "force_raise_errors": True}
    options |= {"resources": {"metadata": {"path": str(path.parent)}}}
    options |= {"extra_arguments": ["--log-level=ERROR"]}
    client, cells = NotebookClient(notebook, **options), notebook["cells"]
    with client.setup_kernel(cleanup_kc=True):
        for number, cell in enumerate(tqdm(cells, desc=path.stem, unit="cell"), 1):
            place = f"{path.name}, cell {number}"
            run_cell(client, number, place)
            check_outputs(cell, place)
    normalise(notebook)
    data = (nbformat.writes(notebook).rstrip("\n") + "\n").encode("utf-8")
    if len(data) > LARGEST_FILE:
        size, most = (round(number / 1000) for number in (len(data), LARGEST_FILE))
        raise ValueError(f"{path.name}: {size} KB, expected {most}; show fewer figures")
    if path.read_bytes() != before:
        raise ValueError(f"{path.name}: edited while it ran and left so; refresh again")
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    seconds = time.perf_counter() - start
    return f"{path.name}: {len(cells)} cells, {seconds:.1f} s, {len(data) / 1e3:.0f} KB"


def find_notebooks(folder: Path, names: Sequence[str]) -> list[Path]:
    """Find notebooks by the beginnings of their names, such as 01; all if none."""
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"{folder}: no notebook (*.ipynb) there")
    chosen = [] if names else paths
    for name in names:
        found = [path for path in paths if path.name.startswith(Path(name).name)]
        if len(found) != 1:
            there = ", ".join(path.name for path in found or paths)
            raise ValueError(f"{name}: {len(found)} notebooks begin so, not 1: {there}")
        chosen += found
    return chosen


def refresh_all(folder: Path, names: Sequence[str]) -> None:
    for path in find_notebooks(folder, names):
        print(refresh(path))


main = Command(refresh_all)
main.add("names", str, "beginnings of names, such as 01; all if none", nargs="*")
main.add("--folder", Path, "folder of the notebooks", FOLDER)

if __name__ == "__main__":
    raise SystemExit(main())
