"""The form of the lessons: every rule over every notebook, and each rule seen to fail.

Faults are (rule, what is wrong); cells count from 1. The last part of the file breaks a
small good book in at least one way for each rule.
"""

import ast
import re
import statistics
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat
import pytest
from comparison import read_tags
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import ui_segmentation_system as ui
from tools import refresh_notebooks as refresh

FOLDER = Path(__file__).parents[1] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
LAST_SECTIONS = ["Recap", "Next", "Answers"]
# Where the network, its training and readers of labels are written on the page.
OPEN = "04", "05", "12"
FIGURES = {"image/png", "image/jpeg"}
OUTPUT_KINDS = FIGURES | {"text/plain", "text/html", "text/markdown", "text/latex"}
WRITTEN_OUT = "# written out here"
LINE = r"(?m)\S.*$"  # that is not blank
HIDING = r"(?i)nbval[_-]\w+|PYTEST_VALIDATE_\w+|raises-exception|skip-execution"
# Dingbats, the sign that colours the character before it, pictographs.
ODD = "[\u2700-\u27bf\ufe0f\U0001f000-\U0010ffff]|TODO|FIXME|XXX|\t"
NO_TEXT = r"!\[\s*\]\(.*?\)|<img\b(?![^>]*\balt=[\"'][^\"'])[^>]*>"
LINK = r"(?:\]\(\s*|\bsrc=[\"'])([^)\s\"']+)"
Faults = Iterator[tuple[str, str]]


@dataclass
class Book:
    """A notebook as its file holds it; size in bytes."""

    path: Path
    content: NotebookNode
    size: int

    @property
    def cells(self) -> list[NotebookNode]:
        """All cells, each with its number and, be it empty, a list of outputs."""
        for number, cell in enumerate(self.content.cells, 1):
            cell.number = number
            cell.setdefault("outputs", [])
        return self.content.cells

    @property
    def code(self) -> list[NotebookNode]:
        return [cell for cell in self.cells if cell.cell_type == "code"]

    @property
    def headings(self) -> list[tuple[int, str, int]]:
        """Level, title and cell number of each heading."""
        return [
            (len(marks), title, cell.number)
            for cell in self.cells
            for marks, title in re.findall(r"(?m)^(#+) +(.+?)\s*$", prose(cell))
        ]


@cache
def read_book(path: Path) -> Book:
    return Book(path, nbformat.read(path, as_version=4), path.stat().st_size)


def prose(cell: NotebookNode) -> str:
    """The Markdown without its fenced blocks of code; empty for a code cell."""
    text = re.sub(r"(?ms)^```.*?^```", "", cell.source)
    return text if cell.cell_type == "markdown" else ""


def tree_of(cell: NotebookNode) -> ast.Module:
    """The parsed code; empty where it is not Python, which one rule reports."""
    try:
        return ast.parse(cell.source if cell.cell_type == "code" else "")
    except SyntaxError:
        return ast.Module([], [])


def definitions_in(cell: NotebookNode) -> dict[str, str]:
    """The sources of functions and classes, by their names."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    nodes = [node for node in tree_of(cell).body if isinstance(node, kinds)]
    return {node.name: ast.get_source_segment(cell.source, node) for node in nodes}


def faults_of_frame(book: Book) -> Faults:
    name = book.path.name
    others = {"00", *(path.name[:2] for path in PATHS if path.name != name)}
    if not re.fullmatch(r"\d\d(_[a-z0-9]+)+\.ipynb", name):
        yield "number follows", f"{name} is not like 01_inspect_masks.ipynb"
    elif name[:2] in others or f"{int(name[:2]) - 1:02d}" not in others:
        yield "number follows", f"{name[:2]} is there twice, or none is before it"
    # Without what cells show: figures of another Pillow have other bytes.
    bare = [cell | {"outputs": [{}] * len(cell.outputs)} for cell in book.cells]
    refreshed = nbformat.from_dict({"cells": bare})
    refresh.normalise(refreshed)
    if book.content.metadata != refreshed.metadata:
        yield "stored as refreshed", "metadata of the notebook"
    for cell, wanted in zip(book.cells, refreshed.cells, strict=True):
        if cell != wanted | {"outputs": cell.outputs}:
            yield "stored as refreshed", f"cell {cell.number}, as {wanted.metadata}"
    if book.size > refresh.LARGEST_FILE:
        yield "stored as refreshed", f"{book.size} bytes, over {refresh.LARGEST_FILE}"
    tags = [tag for cell in book.code for tag in cell.metadata.get("tags", [])]
    if (left_out := sum(tag.startswith("left-out=") for tag in tags)) > 1:
        yield "tags say what is compared", f"{left_out} outputs left out, at most 1"
    opening = "\n".join(map(prose, book.cells[: book.code[0].number]))
    if not opening.startswith(title := f"# {name[:2]} - "):
        yield "title and frame", f"does not start with {title!r}"
    for word in ("You will learn", "Time", "Prerequisites"):
        if f"**{word}" not in opening:
            yield "title and frame", f"no **{word}**"
    levels = [level for level, _, _ in book.headings]
    if levels.count(1) != 1:
        yield "one title and no jumps", f"{levels.count(1)} titles"
    for above, (level, _, number) in zip([0, *levels], book.headings, strict=False):
        if level > above + 1:
            yield "one title and no jumps", f"cell {number}: {level} under {above}"
    sections = [title for level, title, _ in book.headings if level == 2]
    if (last := sections[-len(LAST_SECTIONS) :]) != LAST_SECTIONS:
        yield "sections", f"ends in {last}, not {LAST_SECTIONS}"
    if not any("Break it" in title for title in sections):
        yield "sections", "no section has 'Break it' in its title"


def faults_of_budgets(book: Book) -> Faults:
    # The imports and the answers do not count.
    ends = [number for _, title, number in book.headings if title == "Answers"]
    counted = [cell for cell in book.code[1:] if cell.number < min(ends, default=999)]
    lengths = {cell.number: len(re.findall(LINE, cell.source)) for cell in counted}
    long = [number for number, length in lengths.items() if length > 10]
    for number in long:
        if lengths[number] > 25:
            yield "code cells", f"cell {number}: over 25 lines"
    if not 12 <= len(book.code) <= 32:
        yield "code cells", f"{len(book.code)} code cells, expected 12 to 32"
    is_open = book.path.name[:2] in OPEN
    most, share, defined = (11, 0.5, 0.5) if is_open else (8, 0.34, 0.3)
    if not 3 <= (middle := statistics.median(lengths.values())) <= most:
        yield "code cells", f"median code cell {middle} lines, expected 3 to {most}"
    if len(long) > share * len(lengths):
        yield "code cells", f"{long} of {len(lengths)} over 10 lines, at most {share}"
    kinds = "".join(cell.cell_type[0] for cell in book.cells)
    for match in re.finditer("ccc+", kinds):
        yield "no three code cells in a row", f"cell {match.start() + 1} and after it"

    # Addresses, tags and the rules of tables are no words.
    text = re.sub(r"\]\([^)]*\)|<[^>]*>", " ", "\n".join(map(prose, book.cells)))
    words = sum(bool(re.search(r"\w", word)) for word in text.split())
    lines = sum(lengths.values())
    if not 6 * lines <= words <= 15 * lines:
        yield "words a line of code", f"{words} for {lines} lines, expected 6 to 15"
    parts = [part for cell in counted for part in definitions_in(cell).values()]
    if (inside := len(re.findall(LINE, "\n".join(parts)))) > defined * lines:
        yield "few definitions", f"{inside} of {lines} lines, at most {defined}"


def faults_of_cell(book: Book, cell: NotebookNode) -> Faults:
    kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
    outputs = [text for output in cell.outputs for text in refresh.output_texts(output)]
    texts = "\n".join([cell.source, *outputs])
    # What is drawn as a page: Markdown without code, or the HTML of outputs.
    html = [output.get("data", {}).get("text/html", "") for output in cell.outputs]
    page = re.sub(r"`[^`\n]+`", "code", prose(cell)) + "".join(html)
    ids = [other.id for other in book.cells]
    if not re.fullmatch(r"[\w-]{1,64}", cell.id) or ids.count(cell.id) > 1:
        yield "stored as refreshed", f"id {cell.id}"
    for kind in kinds - OUTPUT_KINDS:
        yield "stored as refreshed", kind
    if leak := refresh.find_leak(texts):
        yield "no trace of a machine", leak
    for odd in re.findall(ODD, texts):
        yield "no tabs, emoji or TODO", repr(odd)
    for picture in re.findall(NO_TEXT, page):
        yield "pictures have alt text", f"no text for {picture}"
    for link in re.findall(LINK, page):
        file, _, anchor = unquote(link).partition("#")
        goal = book.path.parent / (file or book.path.name)
        there = read_book(goal) if file.endswith(".ipynb") and goal.exists() else book
        anchors = {"", *(title.replace(" ", "-") for _, title, _ in there.headings)}
        inside = goal.is_file() and goal.resolve().is_relative_to(FOLDER.parent)
        if not (inside and anchor in anchors) and not re.match(
            r"(https?|mailto|data):", link
        ):
            yield "links resolve", f"{link} leads nowhere"
    used = re.findall(r"`ui\.(\w+)", prose(cell))
    for node in ast.walk(tree_of(cell)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ui":
            used.append(node.attr)
    for name in used:
        if not hasattr(ui, name):
            yield "names of the module exist", f"no ui.{name}"
    if cell.cell_type != "code":
        return
    for kind in (output.get("name", output.output_type) for output in cell.outputs):
        if kind in ("stderr", "error"):
            yield "no stderr and no error", f"stores {kind}"
    for mark in re.findall(HIDING, f"{cell.source} {cell.metadata.get('tags')}"):
        yield "every cell is compared", f"{mark} hides it"
    try:
        read_tags(cell.metadata.get("tags", []))
    except ValueError as error:
        yield "tags say what is compared", str(error)
    for node in ast.walk(tree_of(cell)):
        if isinstance(node, ast.Import | ast.ImportFrom) and cell is not book.code[0]:
            yield "imports in the first code cell", f"import in line {node.lineno}"
    # Magics such as %time and !ls are no Python, so their cells have no tree either.
    bare = re.sub(r"\"[^\"\n]*\"|'[^'\n]*'|#.*", "", cell.source)
    if ";" in bare or not tree_of(cell).body:
        yield "code is plain Python", "a semicolon, a magic or nothing"
    for line in re.findall("(?m)^.{80,}$", cell.source):
        yield "lines of code are narrow", f"over 79: {line}"
    if kinds & FIGURES or "<img" in page:
        if "*What to see:*" not in "".join(map(prose, book.cells[cell.number :][:1])):
            yield "figures are explained", "no *What to see:* in the next cell"
        if not re.search(r"\d", "".join(out.get("text", "") for out in cell.outputs)):
            yield "figures are explained", "no printed line with a number"
    for name in definitions_in(cell):
        if hasattr(ui, name) and WRITTEN_OUT not in cell.source:
            yield "definitions shadow nothing", f"ui has {name} too"


def find_faults(book: Book) -> Faults:
    yield from faults_of_frame(book)
    yield from faults_of_budgets(book)
    for cell in book.cells:
        for rule, what in faults_of_cell(book, cell):
            yield rule, f"cell {cell.number}: {what}"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebook(path: Path) -> None:
    wrong = [f"{rule}: {what}" for rule, what in find_faults(read_book(path))]
    assert not wrong, "\n".join([path.name, *wrong])


SKIP = {"tags": ["nbval-skip"]}
TAGS = {"tags": ["left-out=text: a", "left-out=figure: b", "a=2"]}
Mutation = Callable[[Book], Any]
PROSE = "A plain sentence that says what the next lines of code are going to show. " * 2
FRAME = "**You will learn** much. **Time** little. **Prerequisites** none."
FIGURE = new_output("display_data", {"image/png": ""})
NO_ALT = new_output("display_data", {"text/html": '<img src="no.png"/>'})
ADDRESS = new_output("stream", text="<object at 0x7f31aa20>")
STDERR = new_output("stream", name="stderr", text="oh")
ERROR = new_output("error", ename="ValueError", evalue="no")
SVG = new_output("display_data", {"image/svg+xml": "<svg/>"})


def good_book() -> Book:
    """A book that keeps every rule: Markdown in odd cells, code in even ones."""
    texts = [f"# 01 - Be good\n\n{FRAME}", *[PROSE] * 9]
    texts[1] = f"## What is it?\n\n[Here](#What-is-it?) is `ui.UNet`. {PROSE}"
    texts[3] = f"*What to see:* ![a picture](../test_inputs/1_input.png) {PROSE}"
    texts.append(f"## Break it: the mask\n\n{PROSE}")
    texts.append("".join(f"## {title}\n\n{PROSE}\n\n" for title in LAST_SECTIONS))
    codes = ["image = 1\nsize = 2\nprint(image, size)"] * 11
    codes[0] = "import ui_segmentation_system as ui\n\nNET = ui.UNet"
    codes[3] = f"{WRITTEN_OUT}\ndef overlay():\n    return 1"
    codes.append("def answer():\n" + "    size = 1\n" * 40)
    cells = []
    for place, (text, code) in enumerate(zip(texts, codes, strict=True), 1):
        cells.append(new_markdown_cell(text, id=f"text-{place}"))
        cells.append(new_code_cell(code, id=f"code-{place}", execution_count=place))
    cells[5].outputs = [new_output("stream", text="1 2"), FIGURE]
    content = new_notebook(cells=cells, metadata=refresh.METADATA)
    return Book(FOLDER / "01_inspect_masks.ipynb", deepcopy(content), 1000)


def put(number: int, more: str = "", **entries: Any) -> Mutation:
    """Replace entries of a cell and write more source at its end."""

    def mutate(book: Book) -> None:
        cell = book.cells[number - 1]
        cell.update(entries, source=entries.get("source", cell.source) + more)

    return mutate


def in_all(source: str) -> Mutation:
    """Replace the sources of all code cells."""
    return lambda book: [cell.update(source=source) for cell in book.code]


BROKEN: list[tuple[str, Mutation, str]] = [
    ("number follows", lambda book: vars(book).update(path=Path("99_a.ipynb")), "99"),
    ("number follows", lambda book: vars(book).update(path=Path("1.ipynb")), "like"),
    ("stored as refreshed", lambda book: vars(book).update(size=400_001), "400001"),
    ("stored as refreshed", lambda book: book.content.update(metadata={}), "metad"),
    ("stored as refreshed", put(4, metadata={"a": 1}), r"cell 4, as {}"),
    ("stored as refreshed", put(4, id="code-1"), "cell 4: id code-1"),
    ("stored as refreshed", put(4, outputs=[SVG]), "cell 4: .*svg"),
    ("stored as refreshed", put(5, " **Predict\nfirst.**"), "cell 6, as .*_hidden"),
    ("stored as refreshed", put(4, execution_count=None), r"cell 4, as {}"),
    ("no stderr and no error", put(4, outputs=[STDERR, ERROR]), "stderr.*s error"),
    ("no trace of a machine", put(4, outputs=[ADDRESS]), "cell 4: 0x7f31aa20"),
    ("no trace of a machine", put(3, "/tmp/x"), "cell 3: /tmp/"),
    ("every cell is compared", put(4, " # NBVAL_SKIP", metadata=SKIP), "SKIP.*l-skip"),
    ("tags say what is compared", put(4, metadata=TAGS), "2 outputs.*cell 4: tag"),
    ("title and frame", put(1, source="# 02 - A\n**Time**"), "'# 01 - '.*Prerequis"),
    ("one title and no jumps", put(1, "\n### In\n# More"), "2 titles.*1: 3 under 1"),
    ("sections", put(23, "## Recap"), "'Answers', 'Recap'"),
    ("sections", put(21, source=PROSE), "Break it"),
    ("imports in the first code cell", put(4, "\nimport os"), "cell 4"),
    ("no three code cells in a row", put(3, cell_type="code"), "cell 2 and"),
    ("code is plain Python", put(4, source="%time a = 1"), "cell 4: .*magic"),
    ("code is plain Python", put(4, source=""), "cell 4: .*nothing"),
    ("code is plain Python", put(4, ";"), "cell 4: a semicolon"),
    ("no tabs, emoji or TODO", put(3, "\t TODO \U0001f389"), r"t'.*TODO.*\U0001f389"),
    ("code cells", put(4, cell_type="markdown"), "11 code cells"),
    ("code cells", put(4, "\na = 1" * 23), "cell 4: over 25"),
    ("code cells", in_all("a = 1"), "median code cell 1"),
    ("code cells", in_all("a = 1\n" * 11), "at most 0.34"),
    ("lines of code are narrow", put(4, "  # " + "x" * 60), "cell 4: over 79"),
    ("words a line of code", put(3, " word" * 500), "for 30 lines"),
    ("words a line of code", in_all("a = 1\n" * 9), "for 90 lines"),
    ("few definitions", in_all("def a():\n    b = 1\n\n\na()"), "20 of 30"),
    ("figures are explained", put(7, source=PROSE), "cell 6: .*What to see"),
    ("figures are explained", put(6, outputs=[FIGURE]), "cell 6: .*printed"),
    ("pictures have alt text", put(7, source="![](a.png)"), "cell 7: .*a.png"),
    ("pictures have alt text", put(4, outputs=[NO_ALT]), "cell 4: .*no.png"),
    ("links resolve", put(4, outputs=[NO_ALT]), "cell 4: no.png leads"),
    ("links resolve", put(3, "[a](02_no.ipynb) [a](#Who?)"), "02_no.* #Who. leads"),
    ("definitions shadow nothing", put(4, "\ndef show(): ..."), "ui has show too"),
    ("names of the module exist", put(4, "\nui.UMet()"), "cell 4: no ui.UMet"),
    ("names of the module exist", put(3, "`ui.UMet`"), "cell 3: no ui.UMet"),
]


@pytest.mark.parametrize(("rule", "mutate", "fault"), BROKEN)
def test_rule_can_fail(rule: str, mutate: Mutation, fault: str) -> None:
    book = good_book()
    assert list(find_faults(book)) == []
    mutate(book)
    found = [what for name, what in find_faults(book) if name == rule]
    assert re.search(fault, "\n".join(found), re.DOTALL)


def test_every_rule_is_seen_to_fail() -> None:
    rules = re.findall(r'yield "([\w ,]+)"', Path(__file__).read_text(encoding="utf-8"))
    assert {rule for rule, _, _ in BROKEN} == set(rules)
