"""The form of the lessons: each rule is a test of its own, over every notebook.

The rules take a notebook and raise AssertionError with a line for each fault. The last
part of the file breaks a good notebook once for each rule and sees the rule notice.
"""

import ast
import io
import json
import re
import statistics
import tokenize
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tools.refresh_notebooks import (
    CELL_ID,
    CELL_METADATA,
    LARGEST_FILE,
    METADATA,
    find_leak,
    output_texts,
)

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
MODULE = "ui_segmentation_system"
LAST_SECTIONS = ["Exercises", "Recap", "Next", "Answers"]
OTHER_FILES = {"exercises.py", "__pycache__"}
FIGURES = {"image/png", "image/jpeg"}
OUTPUT_KINDS = FIGURES | {"text/plain", "text/html", "text/markdown", "text/latex"}
BUILT_IN_THE_OPEN = "# built in the open"


# Reading


@dataclass(frozen=True)
class Cell:
    """A cell of a notebook; cells count from 1."""

    number: int
    kind: str
    source: str
    outputs: tuple[dict[str, Any], ...]
    count: int | None
    metadata: dict[str, Any]
    id: str

    @property
    def is_code(self) -> bool:
        return self.kind == "code"

    @property
    def lines(self) -> list[str]:
        """The lines that are not blank."""
        return [line for line in self.source.splitlines() if line.strip()]

    @property
    def tags(self) -> list[str]:
        return self.metadata.get("tags", [])

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed code; empty where it is not Python, which one rule reports."""
        try:
            return ast.parse(self.source)
        except SyntaxError:
            return ast.Module([], [])

    @property
    def prose(self) -> str:
        """The Markdown without what stands in blocks and pieces of code."""
        return re.sub(r"`[^`\n]+`", "code", without_fences(self.source))

    @property
    def html(self) -> str:
        """All HTML that the outputs hold."""
        data = [output.get("data", {}) for output in self.outputs]
        return "".join("".join(entry.get("text/html", "")) for entry in data)

    @property
    def printed(self) -> str:
        """What the cell wrote to stdout."""
        streams = [entry for entry in self.outputs if entry.get("name") == "stdout"]
        return "".join("".join(entry["text"]) for entry in streams)

    @property
    def has_figure(self) -> bool:
        kinds = {kind for output in self.outputs for kind in output.get("data", {})}
        return bool(kinds & FIGURES) or "<img" in self.html


@dataclass(frozen=True)
class Notebook:
    """A notebook as it lies on disk."""

    path: Path
    cells: tuple[Cell, ...]
    metadata: dict[str, Any]
    size: int

    @property
    def code(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.is_code]

    @property
    def markdown(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.kind == "markdown"]

    @property
    def opening(self) -> str:
        """The Markdown above the first code cell."""
        first = self.code[0].number if self.code else len(self.cells) + 1
        return "\n\n".join(cell.source for cell in self.cells[: first - 1])

    @property
    def headings(self) -> list[tuple[int, int, str]]:
        """Cell number, level and title of each heading."""
        found = []
        for cell in self.markdown:
            text = without_fences(cell.source)
            for marks, title in re.findall(r"^(#{1,6}) +(.+?)\s*$", text, re.MULTILINE):
                found.append((cell.number, len(marks), title))
        return found

    @property
    def sections(self) -> list[str]:
        return [title for _, level, title in self.headings if level == 2]


def without_fences(markdown: str) -> str:
    """Take the fenced blocks of code out of Markdown."""
    return re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)


def read_cell(number: int, cell: dict[str, Any]) -> Cell:
    return Cell(
        number=number,
        kind=cell["cell_type"],
        source="".join(cell["source"]),
        outputs=tuple(cell.get("outputs", ())),
        count=cell.get("execution_count"),
        metadata=cell["metadata"],
        id=cell.get("id", ""),
    )


def read_notebook(path: Path) -> Notebook:
    content = json.loads(path.read_text(encoding="utf-8"))
    cells = tuple(read_cell(*entry) for entry in enumerate(content["cells"], 1))
    return Notebook(path, cells, content["metadata"], path.stat().st_size)


def module_names() -> dict[str, bool]:
    """The names at the module's top, and whether each is defined there and public."""
    names: dict[str, bool] = {}
    tree = ast.parse((ROOT / f"{MODULE}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        imported = isinstance(node, ast.Import | ast.ImportFrom)
        for name in names_bound_by(node):
            names[name] = not imported and not name.startswith("_")
    return names


def names_bound_by(node: ast.stmt) -> list[str]:
    """The names that a statement at the top gives a meaning."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Import() | ast.ImportFrom():
            return [alias.asname or alias.name.split(".")[0] for alias in node.names]
        case ast.Assign():
            return [part.id for part in node.targets if isinstance(part, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


NAMES = module_names()
PUBLIC = {name for name, public in NAMES.items() if public}


# Saying what is wrong


Fault = tuple[int, str]


def refuse(notebook: Notebook, faults: Iterable[Fault]) -> None:
    """Fail with a line for each faulty cell; cell 0 is the notebook as a whole."""
    name = notebook.path.name
    lines = [
        f"{name}, cell {number}: {what}" if number else f"{name}: {what}"
        for number, what in faults
    ]
    if lines:
        raise AssertionError("\n".join(lines))


def every_text(cell: Cell) -> Iterator[tuple[str, str]]:
    """The source of a cell and the texts it shows, each with what it is."""
    yield "source", cell.source
    for output in cell.outputs:
        for text in output_texts(output):
            yield "output", text


def search_all(notebook: Notebook, pattern: str) -> Iterator[Fault]:
    """A fault for each text, source or output, in which a pattern occurs."""
    for cell in notebook.cells:
        for where, text in every_text(cell):
            if match := re.search(pattern, text):
                yield cell.number, f"{match[0]!r} in its {where}"


def search_code(notebook: Notebook, pattern: str) -> Iterator[Fault]:
    """A fault for each code cell in whose source a pattern occurs."""
    for cell in notebook.code:
        if match := re.search(pattern, cell.source):
            yield cell.number, f"{match[0]!r} in its source"


# The folder


def stray_files(names: Iterable[str]) -> list[str]:
    """The names that do not belong into the folder of the notebooks."""
    lesson = re.compile(r"\d\d_[a-z0-9]+(_[a-z0-9]+)*\.ipynb")
    return [
        name
        for name in names
        if not (name in OTHER_FILES or name.startswith(".") or lesson.fullmatch(name))
    ]


def gap_in_numbers(names: Iterable[str]) -> list[str]:
    """The numbers of the names, if they do not run 01, 02, 03 without a gap."""
    numbers = sorted(name[:2] for name in names)
    wanted = [f"{number:02d}" for number in range(1, len(numbers) + 1)]
    return numbers if numbers != wanted else []


@pytest.mark.skipif(not PATHS, reason="no notebook yet")
def test_folder_holds_lessons_and_nothing_else() -> None:
    stray = stray_files(path.name for path in FOLDER.iterdir())
    assert not stray, f"notebooks/: {stray}; lessons are named like 01_inspect.ipynb"


@pytest.mark.skipif(not PATHS, reason="no notebook yet")
def test_lessons_are_numbered_from_01() -> None:
    numbers = gap_in_numbers(path.name for path in PATHS)
    assert not numbers, f"notebooks/: numbers {numbers}, expected 01, 02, ..."


# The rules


no_notebook = pytest.param(None, marks=pytest.mark.skip(reason="no notebook yet"))


@pytest.fixture(
    scope="module", params=PATHS or [no_notebook], ids=lambda path: path.stem
)
def notebook(request: pytest.FixtureRequest) -> Notebook:
    return read_notebook(request.param)


def test_file_is_small(notebook: Notebook) -> None:
    if notebook.size > LARGEST_FILE:
        refuse(notebook, [(0, f"{notebook.size} bytes, at most {LARGEST_FILE}")])


def test_metadata_is_as_refreshed(notebook: Notebook) -> None:
    if notebook.metadata != METADATA:
        refuse(notebook, [(0, f"metadata {notebook.metadata}; refresh it")])
    refuse(
        notebook,
        (
            (cell.number, f"metadata {extra}; refresh the notebook")
            for cell in notebook.cells
            if (extra := sorted(set(cell.metadata) - CELL_METADATA))
        ),
    )


def test_cell_ids_are_valid_and_different(notebook: Notebook) -> None:
    ids = [cell.id for cell in notebook.cells]
    refuse(
        notebook,
        (
            (cell.number, f"id {cell.id!r}; refresh the notebook")
            for cell in notebook.cells
            if not CELL_ID.fullmatch(cell.id) or ids.count(cell.id) > 1
        ),
    )


def test_counts_run_from_1(notebook: Notebook) -> None:
    refuse(
        notebook,
        (
            (cell.number, f"execution count {cell.count}, expected {wanted}")
            for wanted, cell in enumerate(notebook.code, 1)
            if cell.count != wanted
        ),
    )


def test_no_stderr(notebook: Notebook) -> None:
    refuse(
        notebook,
        (
            (cell.number, f"stderr: {''.join(output['text'])[:80]!r}")
            for cell in notebook.cells
            for output in cell.outputs
            if output.get("name") == "stderr"
        ),
    )


def test_no_error_output(notebook: Notebook) -> None:
    refuse(
        notebook,
        (
            (cell.number, f"stores the error {output['ename']}: {output['evalue']}")
            for cell in notebook.cells
            for output in cell.outputs
            if output["output_type"] == "error"
        ),
    )


def test_output_kinds_are_plain(notebook: Notebook) -> None:
    refuse(
        notebook,
        (
            (cell.number, f"output of kind {kind}; no svg, gif data or widgets")
            for cell in notebook.cells
            for output in cell.outputs
            for kind in sorted(set(output.get("data", {})) - OUTPUT_KINDS)
        ),
    )


def test_no_machine_path_or_address(notebook: Notebook) -> None:
    refuse(
        notebook,
        (
            (cell.number, f"{leak!r} in its {where}")
            for cell in notebook.cells
            for where, text in every_text(cell)
            if (leak := find_leak(text))
        ),
    )


def test_every_cell_is_compared(notebook: Notebook) -> None:
    marks = r"(?i)\bnbval[_-]\w+|PYTEST_VALIDATE_\w+"
    refuse(notebook, search_code(notebook, marks))
    tags = r"nbval.*|raises-exception|skip-execution"
    refuse(
        notebook,
        (
            (cell.number, f"tag {tag!r}")
            for cell in notebook.cells
            for tag in cell.tags
            if re.fullmatch(tags, tag)
        ),
    )


def test_first_cell_is_the_title(notebook: Notebook) -> None:
    wanted = f"# {notebook.path.name[:2]} - "
    start = notebook.opening[: len(wanted)]
    if start != wanted:
        refuse(notebook, [(1, f"starts with {start!r}, expected {wanted!r}")])


@pytest.mark.parametrize("words", ["You will learn", "Time", "Prerequisites"])
def test_opening_says(notebook: Notebook, words: str) -> None:
    if not re.search(rf"\*\*{words}\b", notebook.opening):
        refuse(notebook, [(1, f"no **{words}** above the first code cell")])


def test_one_title(notebook: Notebook) -> None:
    titles = [(cell, title) for cell, level, title in notebook.headings if level == 1]
    refuse(notebook, ((cell, f"a second title: {title}") for cell, title in titles[1:]))


def test_heading_levels_do_not_jump(notebook: Notebook) -> None:
    above = 0
    for number, level, title in notebook.headings:
        if level > above + 1:
            refuse(notebook, [(number, f"level {level} under {above}: {title}")])
        above = level


def test_last_sections_are_in_order(notebook: Notebook) -> None:
    last = notebook.sections[-len(LAST_SECTIONS) :]
    if last != LAST_SECTIONS:
        refuse(notebook, [(0, f"the last sections are {last}, not {LAST_SECTIONS}")])


def test_something_is_broken_on_purpose(notebook: Notebook) -> None:
    if not any("Break it" in title for title in notebook.sections):
        refuse(notebook, [(0, "no section (##) has 'Break it' in its title")])


def test_code_is_plain_python(notebook: Notebook) -> None:
    # Magics (%%time, !ls, name?) are no Python, so they are refused as well.
    def problem(cell: Cell) -> str | None:
        try:
            ast.parse(cell.source)
        except SyntaxError as error:
            return f"line {error.lineno} is not plain Python: {error.text!r}"
        return None if cell.lines else "an empty code cell"

    refuse(
        notebook,
        ((cell.number, fault) for cell in notebook.code if (fault := problem(cell))),
    )


def test_no_semicolons(notebook: Notebook) -> None:
    def semicolons(cell: Cell) -> bool:
        lines = io.StringIO(cell.source).readline
        tokens = tokenize.generate_tokens(lines) if cell.tree.body else ()
        return any(token.string == ";" for token in tokens)

    refuse(
        notebook,
        ((cell.number, "a semicolon") for cell in notebook.code if semicolons(cell)),
    )


def test_no_tabs(notebook: Notebook) -> None:
    found = ((cell.number, "a tab") for cell in notebook.cells if "\t" in cell.source)
    refuse(notebook, found)


def test_nothing_is_left_to_do(notebook: Notebook) -> None:
    refuse(notebook, search_all(notebook, r"\b(TODO|FIXME|XXX)\b"))


def test_no_emoji(notebook: Notebook) -> None:
    # Dingbats, the sign that colours the character before it, pictographs.
    refuse(notebook, search_all(notebook, "[\u2700-\u27bf\ufe0f\U0001f000-\U0010ffff]"))


def test_imports_are_in_the_first_code_cell(notebook: Notebook) -> None:
    refuse(
        notebook,
        (
            (cell.number, f"an import in its line {node.lineno}")
            for cell in notebook.code[1:]
            for node in ast.walk(cell.tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
        ),
    )


# The budgets


def test_number_of_code_cells(notebook: Notebook) -> None:
    number = len(notebook.code)
    if not 12 <= number <= 30:
        refuse(notebook, [(0, f"{number} code cells, expected 12 to 30")])


def test_length_of_code_cells(notebook: Notebook) -> None:
    lengths = [len(cell.lines) for cell in notebook.code]
    middle = statistics.median(lengths or [0])
    if not 3 <= middle <= 6:
        refuse(notebook, [(0, f"median code cell {middle} lines, expected 3 to 6")])


def test_most_code_cells_are_short(notebook: Notebook) -> None:
    long = [cell.number for cell in notebook.code if len(cell.lines) > 10]
    if len(long) > 0.2 * len(notebook.code):
        what = f"over 10 lines in cells {long}, at most a fifth of {len(notebook.code)}"
        refuse(notebook, [(0, what)])


def test_no_code_cell_is_long(notebook: Notebook) -> None:
    refuse(
        notebook,
        (
            (cell.number, f"{len(cell.lines)} lines, at most 25")
            for cell in notebook.code
            if len(cell.lines) > 25
        ),
    )


def test_lines_of_code_are_narrow(notebook: Notebook) -> None:
    refuse(
        notebook,
        (
            (cell.number, f"{len(line)} characters, at most 79: {line.strip()}")
            for cell in notebook.code
            for line in cell.lines
            if len(line) > 79
        ),
    )


def count_words(markdown: str) -> int:
    """The words that are read: no blocks of code, addresses, tags, rules of tables."""
    text = re.sub(r"\]\([^)]*\)|<[^>]*>", " ", without_fences(markdown))
    return sum(bool(re.search(r"\w", word)) for word in text.split())


def test_words_a_line_of_code(notebook: Notebook) -> None:
    words = sum(count_words(cell.source) for cell in notebook.markdown)
    lines = sum(len(cell.lines) for cell in notebook.code)
    if not 6 * lines <= words <= 15 * lines:
        what = f"{words} words for {lines} lines of code, expected 6 to 15 a line"
        refuse(notebook, [(0, what)])


def test_no_three_code_cells_in_a_row(notebook: Notebook) -> None:
    cells = notebook.cells
    refuse(
        notebook,
        (
            (third.number, "the third code cell in a row; say something before it")
            for first, second, third in zip(cells, cells[1:], cells[2:], strict=False)
            if first.is_code and second.is_code and third.is_code
        ),
    )


def lines_in_definitions(cell: Cell) -> int:
    """The lines of a cell, not blank, inside functions and classes."""
    inside: set[int] = set()
    for node in ast.walk(cell.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([node.lineno, *(part.lineno for part in node.decorator_list)])
            inside.update(range(first, node.end_lineno + 1))
    lines = cell.source.splitlines()
    return sum(bool(lines[number - 1].strip()) for number in inside)


def test_most_code_is_outside_definitions(notebook: Notebook) -> None:
    inside = sum(lines_in_definitions(cell) for cell in notebook.code)
    lines = sum(len(cell.lines) for cell in notebook.code)
    if inside >= 0.25 * lines:
        what = f"{inside} of {lines} lines are inside definitions, under a quarter"
        refuse(notebook, [(0, what)])


# Figures, links and names


def test_figures_are_explained(notebook: Notebook) -> None:
    def is_explained(cell: Cell) -> bool:
        after = notebook.cells[cell.number : cell.number + 1]
        return any(
            next_one.kind == "markdown" and "*What to see:*" in next_one.source
            for next_one in after
        )

    refuse(
        notebook,
        (
            (cell.number, "no *What to see:* in a markdown cell right under its figure")
            for cell in notebook.code
            if cell.has_figure and not is_explained(cell)
        ),
    )


def test_figures_come_with_numbers(notebook: Notebook) -> None:
    refuse(
        notebook,
        (
            (cell.number, "a figure, but no printed line with a number behind it")
            for cell in notebook.code
            if cell.has_figure and not re.search(r"\d", cell.printed)
        ),
    )


def pictures_of(cell: Cell) -> list[tuple[str, str]]:
    """The alternative text and the address of each picture shown by a cell."""
    shown = cell.html if cell.is_code else cell.prose
    found = re.findall(r"!\[([^\]]*)\]\(\s*([^)\s]+)", shown)
    for tag in re.findall(r"<img\b[^>]*>", shown):
        told = dict(re.findall(r"\b(alt|src)=[\"']([^\"']*)", tag))
        found.append((told.get("alt", ""), told.get("src", "")))
    return found


def test_pictures_have_alt_text(notebook: Notebook) -> None:
    refuse(
        notebook,
        (
            (cell.number, f"the picture {address} has no alternative text")
            for cell in notebook.cells
            for alt, address in pictures_of(cell)
            if not alt.strip()
        ),
    )


def links_of(cell: Cell) -> list[str]:
    """The addresses that a cell links to or shows a picture from."""
    links = {address for _, address in pictures_of(cell)}
    if cell.kind == "markdown":
        links.update(re.findall(r"\]\(\s*([^)\s]+)", cell.prose))
    return sorted(links)


def anchors_of(path: Path) -> set[str]:
    """The anchors of a notebook's headings, as JupyterLab makes them."""
    headings = read_notebook(path).headings
    return {title.replace(" ", "-") for _, _, title in headings}


def problem_of_link(path: Path, link: str) -> str | None:
    """What is wrong with a link in the notebook at path, or None."""
    if re.match(r"(https?|mailto):", link):
        return None
    file, _, anchor = unquote(link).partition("#")
    goal = path.parent / file if file else path
    if file.startswith("/") or not goal.exists():
        return f"{link} leads to no file"
    if anchor and goal.suffix == ".ipynb" and anchor not in anchors_of(goal):
        return f"{link}: no such heading; there are {sorted(anchors_of(goal))}"
    return None


def test_links_resolve(notebook: Notebook) -> None:
    refuse(
        notebook,
        (
            (cell.number, problem)
            for cell in notebook.cells
            for link in links_of(cell)
            if (problem := problem_of_link(notebook.path, link))
        ),
    )


def makes_a_function(value: ast.expr, name: str) -> bool:
    """Whether an assigned value is a function other than the module's of that name."""
    match value:
        case ast.Attribute(attr=attribute):
            return attribute != name
        case ast.Call(func=function):
            return ast.unparse(function).endswith("partial")
    return isinstance(value, ast.Lambda)


def defined_names(cell: Cell) -> Iterator[str]:
    """The names of the functions and classes that a cell makes, methods apart."""
    for node in cell.tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        if isinstance(node, ast.Assign):
            for name in names_bound_by(node):
                if makes_a_function(node.value, name):
                    yield name


def test_definitions_do_not_shadow_the_module(notebook: Notebook) -> None:
    what = f"is also a name of the module; rename it or say {BUILT_IN_THE_OPEN!r}"
    refuse(
        notebook,
        (
            (cell.number, f"{name} {what}")
            for cell in notebook.code
            if BUILT_IN_THE_OPEN not in cell.source
            for name in defined_names(cell)
            if name in PUBLIC
        ),
    )


def module_aliases(notebook: Notebook) -> set[str]:
    """The names under which a notebook imports the module as a whole."""
    return {
        alias.asname or alias.name
        for cell in notebook.code
        for node in ast.walk(cell.tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == MODULE
    }


def used_names(cell: Cell, aliases: set[str]) -> Iterator[str]:
    """The names of the module that a cell uses in its code or between backticks."""
    for node in ast.walk(cell.tree) if cell.is_code else ():
        match node:
            case ast.Attribute(value=ast.Name(id=alias), attr=name) if alias in aliases:
                yield name
            case ast.ImportFrom(module=module, names=names) if module == MODULE:
                yield from (alias.name for alias in names)
    for alias in () if cell.is_code else aliases:
        yield from re.findall(rf"`{alias}\.(\w+)", cell.source)


def test_names_of_the_module_exist(notebook: Notebook) -> None:
    aliases = module_aliases(notebook)
    refuse(
        notebook,
        (
            (cell.number, f"the module has no {name}")
            for cell in notebook.cells
            for name in used_names(cell, aliases)
            if name not in NAMES
        ),
    )


# The rules notice


Content = dict[str, Any]
Breaker = Callable[[Content], None]


def code_cell(count: int, source: str) -> Content:
    return {
        "cell_type": "code",
        "execution_count": count,
        "id": f"code-{count}",
        "metadata": {},
        "outputs": [],
        "source": source,
    }


def markdown_cell(number: int, source: str) -> Content:
    name = f"text-{number}"
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


PROSE = "a plain sentence that says what the next lines of code are going to show. " * 2
LAST_CELL = "".join(f"## {title}\n\n{PROSE}\n\n" for title in LAST_SECTIONS)
FIGURE_CELL = 6


def good_notebook() -> Content:
    """A notebook that keeps every rule; odd cells are Markdown, even ones code."""
    texts = [PROSE] * 13
    words = ("You will learn", "Time", "Prerequisites")
    texts[0] = "# 01 - Be good\n\n" + "".join(f"**{word}** much. " for word in words)
    texts[1] = f"## What is it?\n\n[Here](01_good.ipynb#What-is-it?), `ui.UNet` {PROSE}"
    texts[3] = f"*What to see:* ![a picture](data.png) {PROSE}"
    texts[11] = f"## Break it: the mask\n\n{PROSE}"
    texts[12] = LAST_CELL
    sources = ["image = 1\nsize = 2\nprint(image, size)"] * 12
    sources[0] = "import math\n\nimport ui_segmentation_system as ui\n\nNET = ui.UNet"
    cells = []
    for number, text in enumerate(texts):
        cells.append(markdown_cell(number, text))
        if number < len(sources):
            cells.append(code_cell(number + 1, sources[number]))
    cells[FIGURE_CELL - 1]["outputs"] = [
        {"output_type": "stream", "name": "stdout", "text": ["1 2\n"]},
        {"output_type": "display_data", "data": {"image/png": ""}, "metadata": {}},
    ]
    metadata = json.loads(json.dumps(METADATA))
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def store(content: Content, folder: Path) -> Notebook:
    """Write a notebook beside the one picture that it may link to, and read it."""
    (folder / "data.png").touch()
    path = folder / "01_good.ipynb"
    path.write_text(json.dumps(content), encoding="utf-8")
    return read_notebook(path)


def write(number: int, source: str) -> Breaker:
    """Break a notebook by the source of a cell."""

    def break_it(content: Content) -> None:
        content["cells"][number - 1]["source"] = source

    return break_it


def also(number: int, source: str) -> Breaker:
    """Break a notebook by more source at the end of a cell."""

    def break_it(content: Content) -> None:
        content["cells"][number - 1]["source"] += source

    return break_it


def show(number: int, kind: str, **entries: Any) -> Breaker:
    """Break a notebook by an output more of a cell."""

    def break_it(content: Content) -> None:
        content["cells"][number - 1]["outputs"].append({"output_type": kind, **entries})

    return break_it


def swap(old: str, new: str) -> Breaker:
    """Break a notebook by other words in all its Markdown."""

    def break_it(content: Content) -> None:
        for cell in content["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = cell["source"].replace(old, new)

    return break_it


def put(number: int, key: str, value: Any) -> Breaker:
    """Break a notebook by an entry of a cell."""

    def break_it(content: Content) -> None:
        content["cells"][number - 1][key] = value

    return break_it


def in_every_code_cell(source: str) -> Breaker:
    """Break a notebook by the sources of all its code cells."""

    def break_it(content: Content) -> None:
        for cell in content["cells"][1::2]:
            cell["source"] = source

    return break_it


def lose(first: int, last: int) -> Breaker:
    """Break a notebook by leaving cells out, the last one included."""

    def break_it(content: Content) -> None:
        del content["cells"][first - 1 : last]

    return break_it


def add_widgets(content: Content) -> None:
    content["metadata"]["widgets"] = {}


def html(text: str) -> dict[str, Any]:
    return {"data": {"text/html": [text]}, "metadata": {}}


SVG = {"data": {"image/svg+xml": "<svg/>"}, "metadata": {}}
GIF = '<img src="data.png"/>'
LONG_DEFINITION = "def a():\n" + "    b = 1\n" * 20
BREAKS: list[tuple[Callable[..., None], Breaker, str]] = [
    (test_file_is_small, also(3, "x" * 300_000), "bytes, at most 300000"),
    (test_metadata_is_as_refreshed, add_widgets, "widgets.*refresh it"),
    (
        test_metadata_is_as_refreshed,
        put(4, "metadata", {"execution": {}}),
        "cell 4: metadata .'execution'",
    ),
    (test_cell_ids_are_valid_and_different, put(4, "id", "a b"), "cell 4: id 'a b'"),
    (test_cell_ids_are_valid_and_different, put(4, "id", "code-1"), "cell 2: id"),
    (test_counts_run_from_1, put(4, "execution_count", None), "cell 4: .* None.* 2"),
    (test_no_stderr, show(4, "stream", name="stderr", text=["oh"]), "cell 4: .*'oh'"),
    (
        test_no_error_output,
        show(4, "error", ename="ValueError", evalue="no", traceback=[]),
        "cell 4: stores the error ValueError: no",
    ),
    (test_output_kinds_are_plain, show(4, "display_data", **SVG), "cell 4: .*svg"),
    (
        test_no_machine_path_or_address,
        show(4, "stream", name="stdout", text=["at /ho", "me/me/x.png"]),
        "cell 4: '/home/' in its output",
    ),
    (
        test_no_machine_path_or_address,
        show(4, "execute_result", **html("<b>0x7f31aa20</b>")),
        "cell 4: '0x7f31aa20' in its output",
    ),
    (test_no_machine_path_or_address, also(3, "/tmp/x"), "cell 3: .*in its source"),
    (test_every_cell_is_compared, also(4, "\n# NBVAL_IGNORE_OUTPUT"), "cell 4: 'NBVAL"),
    (
        test_every_cell_is_compared,
        put(4, "metadata", {"tags": ["raises-exception"]}),
        "cell 4: tag 'raises-exception'",
    ),
    (test_first_cell_is_the_title, swap("# 01", "# 02"), "cell 1: .*'# 02 - '"),
    (test_opening_says, swap("**Time**", "Time"), r"no \*\*Time\*\*"),
    (test_one_title, also(3, "\n\n# More"), "cell 3: a second title: More"),
    (test_heading_levels_do_not_jump, also(1, "\n\n### In"), "cell 1: level 3 under 1"),
    (test_last_sections_are_in_order, swap("## Next", "## Recap"), "'Recap', 'Recap'"),
    (test_last_sections_are_in_order, also(25, "## More"), "'More'"),
    (test_something_is_broken_on_purpose, swap("Break it", "Do it"), "no section"),
    (test_code_is_plain_python, write(4, "x = !ls"), "cell 4: line 1 .*!ls"),
    (test_code_is_plain_python, write(4, "\n"), "cell 4: an empty code cell"),
    (test_code_is_plain_python, write(4, "%%time\nx = 1"), "cell 4: line 1 .*%%time"),
    (test_no_semicolons, also(4, ";  # quiet"), "cell 4: a semicolon"),
    (test_no_tabs, write(4, "if size:\n\tsize = 1"), "cell 4: a tab"),
    (test_nothing_is_left_to_do, also(4, "\n# TODO more"), "cell 4: 'TODO'"),
    (test_no_emoji, also(3, "done \u2713"), "cell 3: "),
    (test_no_emoji, also(3, "done \U0001f389"), "cell 3: "),
    (
        test_imports_are_in_the_first_code_cell,
        also(4, "\nfrom math import pi"),
        "cell 4: an import in its line 4",
    ),
    (test_number_of_code_cells, lose(8, 9), "11 code cells"),
    (test_length_of_code_cells, in_every_code_cell("a = 1\n\nb = 1"), "cell 2"),
    (test_most_code_cells_are_short, in_every_code_cell("a = 1\n" * 11), "at most a"),
    (test_no_code_cell_is_long, write(4, "a = 1\n" * 26), "cell 4: 26 lines"),
    (test_lines_of_code_are_narrow, also(4, "  # " + "x" * 60), "cell 4: 8. char"),
    (
        test_words_a_line_of_code,
        swap("sentence that says what the next lines of code are", ""),
        "words for 3. lines",
    ),
    (test_words_a_line_of_code, also(3, " word" * 300), "words for 3. lines"),
    (test_no_three_code_cells_in_a_row, put(3, "cell_type", "code"), "cell [34]: the"),
    (test_most_code_is_outside_definitions, write(4, LONG_DEFINITION), "21 of 5. li"),
    (test_figures_are_explained, swap("*What to see:*", "See"), "cell 6: no"),
    (
        test_figures_come_with_numbers,
        show(4, "display_data", **html(GIF)),
        "cell 4: a figure",
    ),
    (test_pictures_have_alt_text, swap("[a picture]", "[]"), "cell 7: .*data.png"),
    (
        test_pictures_have_alt_text,
        show(4, "display_data", **html(GIF)),
        "cell 4: .*data.png",
    ),
    (test_links_resolve, swap("data.png", "date.png"), "cell 7: date.png leads"),
    (test_links_resolve, swap("#What-is", "#Who-is"), "cell 3: .*no such heading"),
    (
        test_definitions_do_not_shadow_the_module,
        also(4, "\ndef overlay(image):\n    return image"),
        "cell 4: overlay is also",
    ),
    (
        test_definitions_do_not_shadow_the_module,
        also(4, "\nshow = lambda image: image"),
        "cell 4: show is also",
    ),
    (test_names_of_the_module_exist, also(4, "\nui.UMet()"), "cell 4: .* no UMet"),
    (test_names_of_the_module_exist, swap("ui.UNet", "ui.UMet"), "cell 3: .* no UMet"),
]


def call(rule: Callable[..., None], notebook: Notebook) -> None:
    """Call a rule the way pytest does."""
    words = ["Time"] if rule is test_opening_says else []
    rule(notebook, *words)


def rules() -> list[Callable[..., None]]:
    """All tests that take a notebook."""
    tests = [thing for name, thing in globals().items() if name.startswith("test_")]
    return [test for test in tests if "notebook" in test.__annotations__]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.__name__)
def test_rule_accepts_a_good_notebook(rule: Callable[..., None], tmp_path) -> None:
    call(rule, store(good_notebook(), tmp_path))


@pytest.mark.parametrize(
    ("rule", "break_it", "message"), BREAKS, ids=[rule.__name__ for rule, *_ in BREAKS]
)
def test_rule_notices(
    rule: Callable[..., None], break_it: Breaker, message: str, tmp_path: Path
) -> None:
    content = good_notebook()
    break_it(content)
    with pytest.raises(AssertionError, match=message):
        call(rule, store(content, tmp_path))


def test_every_rule_is_seen_to_notice() -> None:
    assert {rule.__name__ for rule in rules()} == {rule.__name__ for rule, *_ in BREAKS}


def test_definition_in_the_open_may_have_the_name_of_the_module(tmp_path) -> None:
    content = good_notebook()
    also(4, f"\n{BUILT_IN_THE_OPEN}\ndef overlay(image):\n    return 1")(content)
    test_definitions_do_not_shadow_the_module(store(content, tmp_path))


def test_stray_files_and_gaps_are_noticed() -> None:
    good = ["01_inspect_masks.ipynb", "02_data.ipynb", "exercises.py", ".ipynb_x"]
    bad = ["Untitled.ipynb", "3_short.ipynb", "04_Capital.ipynb", "notes.txt"]
    assert stray_files(good + bad) == bad
    assert gap_in_numbers(["02_b.ipynb", "01_a.ipynb"]) == []
    assert gap_in_numbers(["01_a.ipynb", "03_b.ipynb"]) == ["01", "03"]
    assert gap_in_numbers(["01_a.ipynb", "01_b.ipynb"]) == ["01", "01"]
