"""The form of the lessons: every rule over every notebook, and each rule seen to fail.

A rule takes a book and lists its faults. Cells count from 1. The last part of the file
breaks a small good book in at least one way for each rule.
"""

import ast
import re
import statistics
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import ui_segmentation_system as ui
from tools import refresh_notebooks as refresh

FOLDER = Path(__file__).parents[1] / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
LAST_SECTIONS = ["Exercises", "Recap", "Next", "Answers"]
FIGURES = {"image/png", "image/jpeg"}
OUTPUT_KINDS = FIGURES | {"text/plain", "text/html", "text/markdown", "text/latex"}
BUILT_IN_THE_OPEN = "# built in the open"
Find = Callable[[NotebookNode], Iterable[object]]
DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


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
    def lesson_code(self) -> list[NotebookNode]:
        """The code cells that the budgets count: not the imports, not Answers."""
        ends = [number for _, title, number in self.headings if title == "Answers"]
        return [cell for cell in self.code[1:] if cell.number < min(ends, default=999)]

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


def faults(cells: list[NotebookNode], find: Find, what: str = "{}") -> list[str]:
    """Say of each cell what is found in it."""
    found = [(cell.number, thing) for cell in cells for thing in find(cell)]
    return [f"cell {number}: {what.format(thing)}" for number, thing in found]


def lines_of(cell: NotebookNode) -> list[str]:
    """The lines that are not blank."""
    return [line for line in cell.source.splitlines() if line.strip()]


def tree_of(cell: NotebookNode) -> ast.Module:
    """The parsed code; empty where it is not Python, which one rule reports."""
    try:
        return ast.parse(cell.source if cell.cell_type == "code" else "")
    except SyntaxError:
        return ast.Module([], [])


def texts_of(cell: NotebookNode) -> str:
    """The source and all texts of the outputs."""
    texts = [text for output in cell.outputs for text in refresh.output_texts(output)]
    return "\n".join([cell.source, *texts])


def prose(cell: NotebookNode) -> str:
    """The Markdown without its fenced blocks of code; empty for a code cell."""
    text = re.sub(r"(?ms)^```.*?^```", "", cell.source)
    return text if cell.cell_type == "markdown" else ""


def page(cell: NotebookNode) -> str:
    """What is drawn as a page: Markdown without code, or the HTML of outputs."""
    html = [output.get("data", {}).get("text/html", "") for output in cell.outputs]
    return re.sub(r"`[^`\n]+`", "code", prose(cell)) + "".join(html)


def kinds_of(cell: NotebookNode) -> set[str]:
    """The kinds of data in the outputs, such as image/png."""
    return {kind for output in cell.outputs for kind in output.get("data", {})}


def rule_number_follows(book: Book) -> list[str]:
    name = book.path.name
    if not re.fullmatch(r"\d\d(_[a-z0-9]+)+\.ipynb", name):
        return [f"{name} is not like 01_inspect_masks.ipynb"]
    others = {path.name[:2] for path in FOLDER.glob("*.ipynb") if path.name != name}
    before = f"{int(name[:2]) - 1:02d}"
    follows = name[:2] not in others and before in others | {"00"}
    return [] if follows else [f"{name[:2]} is there twice, or {before} is missing"]


def rule_stored_as_refreshed(book: Book) -> list[str]:
    ids = [cell.id for cell in book.cells]

    def strange(cell: NotebookNode) -> Iterator[str]:
        yield from set(cell.metadata) - refresh.CELL_METADATA
        yield from kinds_of(cell) - OUTPUT_KINDS
        if not refresh.CELL_ID.fullmatch(cell.id) or ids.count(cell.id) > 1:
            yield f"id {cell.id}"

    whole = (
        []
        if book.content.metadata == refresh.METADATA
        else ["metadata of the notebook"]
    )
    if book.size > refresh.LARGEST_FILE:
        whole.append(f"{book.size} bytes, at most {refresh.LARGEST_FILE}")
    return whole + faults(book.cells, strange, "refresh it; {}")


def rule_counts_run_from_1(book: Book) -> list[str]:
    counts = [cell.execution_count for cell in book.code]
    return [] if counts == list(range(1, len(counts) + 1)) else [f"counts {counts}"]


def rule_no_stderr_and_no_error(book: Book) -> list[str]:
    def errors(cell: NotebookNode) -> list[str]:
        kinds = [output.get("name", output.output_type) for output in cell.outputs]
        return [kind for kind in kinds if kind in ("stderr", "error")]

    return faults(book.code, errors, "stores {}")


def rule_no_trace_of_a_machine(book: Book) -> list[str]:
    leaks = [(cell, refresh.find_leak(texts_of(cell))) for cell in book.cells]
    return [f"cell {cell.number}: {leak}" for cell, leak in leaks if leak]


def rule_every_cell_is_compared(book: Book) -> list[str]:
    def hidden(cell: NotebookNode) -> list[str]:
        marks = r"(?i)nbval[_-]\w+|PYTEST_VALIDATE_\w+|raises-exception|skip-execution"
        return re.findall(marks, f"{cell.source} {cell.metadata.get('tags')}")

    return faults(book.code, hidden, "{} hides it")


def rule_title_and_frame(book: Book) -> list[str]:
    opening = "\n".join(map(prose, book.cells[: book.code[0].number]))
    title = f"# {book.path.name[:2]} - "
    wrong = [] if opening.startswith(title) else [f"does not start with {title!r}"]
    words = ["You will learn", "Time", "Prerequisites"]
    return wrong + [f"no **{word}**" for word in words if f"**{word}" not in opening]


def rule_one_title_and_no_jumps(book: Book) -> list[str]:
    levels = [level for level, _, _ in book.headings]
    wrong = [] if levels.count(1) == 1 else [f"{levels.count(1)} titles"]
    for above, (level, title, number) in zip([0, *levels], book.headings, strict=False):
        if level > above + 1:
            wrong.append(f"cell {number}: level {level} under {above}: {title}")
    return wrong


def rule_sections(book: Book) -> list[str]:
    sections = [title for level, title, _ in book.headings if level == 2]
    last = sections[-len(LAST_SECTIONS) :]
    wrong = [] if last == LAST_SECTIONS else [f"ends in {last}, not {LAST_SECTIONS}"]
    broken = any("Break it" in title for title in sections)
    return wrong if broken else [*wrong, "no section has 'Break it' in its title"]


def rule_imports_in_the_first_code_cell(book: Book) -> list[str]:
    def imports(cell: NotebookNode) -> list[int]:
        nodes = ast.walk(tree_of(cell))
        kinds = ast.Import | ast.ImportFrom
        return [node.lineno for node in nodes if isinstance(node, kinds)]

    return faults(book.code[1:], imports, "an import in its line {}")


def rule_no_three_code_cells_in_a_row(book: Book) -> list[str]:
    kinds = "".join(cell.cell_type[0] for cell in book.cells)
    rows = [match.start() + 1 for match in re.finditer("ccc+", kinds)]
    return [f"cell {number}: three code cells in a row" for number in rows]


def rule_code_is_plain_python(book: Book) -> list[str]:
    # Magics such as %time and !ls are no Python, so their cells have no tree either.
    def odd(cell: NotebookNode) -> list[str]:
        bare = re.sub(r"\"[^\"\n]*\"|'[^'\n]*'|#.*", "", cell.source)
        return re.findall(".*;", bare) if tree_of(cell).body else ["magic or empty"]

    return faults(book.code, odd, "not plain Python: {}")


def rule_no_tabs_emoji_or_todo(book: Book) -> list[str]:
    # Dingbats, the sign that colours the character before it, pictographs.
    pattern = re.compile("[\u2700-\u27bf\ufe0f\U0001f000-\U0010ffff]|TODO|FIXME|XXX|\t")
    return faults(book.cells, lambda cell: pattern.findall(texts_of(cell)), "{!r}")


def rule_code_cells(book: Book) -> list[str]:
    lengths = {cell.number: len(lines_of(cell)) for cell in book.lesson_code}
    middle = statistics.median(lengths.values())
    long = [number for number, length in lengths.items() if length > 10]
    wrong = [f"cell {number}: over 25 lines" for number in long if lengths[number] > 25]
    if not 12 <= len(book.code) <= 32:
        wrong.append(f"{len(book.code)} code cells, expected 12 to 32")
    if not 3 <= middle <= 8:
        wrong.append(f"median code cell {middle} lines, expected 3 to 8")
    if len(long) > 0.2 * len(lengths):
        wrong.append(f"cells {long} of {len(lengths)} over 10 lines, at most a fifth")
    return wrong


def rule_lines_of_code_are_narrow(book: Book) -> list[str]:
    wide = re.compile(r"(?m)^.{80,}$")
    return faults(book.code, lambda cell: wide.findall(cell.source), "over 79: {}")


def rule_words_a_line_of_code(book: Book) -> list[str]:
    # Addresses, tags and the rules of tables are not read.
    text = re.sub(r"\]\([^)]*\)|<[^>]*>", " ", "\n".join(map(prose, book.cells)))
    words = sum(bool(re.search(r"\w", word)) for word in text.split())
    lines = sum(len(lines_of(cell)) for cell in book.lesson_code)
    fits = 6 * lines <= words <= 15 * lines
    return [] if fits else [f"{words} words for {lines} lines, expected 6 to 15 a line"]


def definitions_in(cell: NotebookNode) -> list[ast.stmt]:
    return [node for node in tree_of(cell).body if isinstance(node, DEFINITIONS)]


def rule_few_definitions(book: Book) -> list[str]:
    inside = lines = 0
    for cell in book.lesson_code:
        lines += len(lines_of(cell))
        for node in definitions_in(cell):
            block = cell.source.splitlines()[node.lineno - 1 : node.end_lineno]
            inside += sum(bool(line.strip()) for line in block)
    many = inside > 0.3 * lines
    return [f"{inside} of {lines} lines in definitions, at most 30 %"] if many else []


def rule_figures_are_explained(book: Book) -> list[str]:
    def missing(cell: NotebookNode) -> Iterator[str]:
        if not kinds_of(cell) & FIGURES and "<img" not in page(cell):
            return
        if "*What to see:*" not in "".join(map(prose, book.cells[cell.number :][:1])):
            yield "*What to see:* in the next cell"
        if not re.search(r"\d", "".join(out.get("text", "") for out in cell.outputs)):
            yield "printed line with a number"

    return faults(book.code, missing, "a figure, but no {}")


def rule_pictures_have_alt_text(book: Book) -> list[str]:
    bare = re.compile(r"!\[\s*\]\(.*?\)|<img\b(?![^>]*\balt=[\"'][^\"'])[^>]*>")
    return faults(book.cells, lambda cell: bare.findall(page(cell)), "no text for {}")


def leads_nowhere(book: Book, link: str) -> bool:
    """Whether a link leads neither out nor to a file and a heading that exist."""
    file, _, anchor = unquote(link).partition("#")
    goal = book.path.parent / file
    if re.match(r"(https?|mailto|data):", link):
        return False
    if file.startswith("/") or not goal.exists():
        return True
    headings = read_book(goal).headings if goal.suffix == ".ipynb" else book.headings
    return anchor not in {"", *(title.replace(" ", "-") for _, title, _ in headings)}


def rule_links_resolve(book: Book) -> list[str]:
    def dead(cell: NotebookNode) -> list[str]:
        links = re.findall(r"(?:\]\(\s*|\bsrc=[\"'])([^)\s\"']+)", page(cell))
        return [link for link in links if leads_nowhere(book, link)]

    return faults(book.cells, dead, "{} leads nowhere")


def rule_definitions_shadow_nothing(book: Book) -> list[str]:
    def shadows(cell: NotebookNode) -> list[str]:
        names = [node.name for node in definitions_in(cell)]
        return [name for name in names if hasattr(ui, name)]

    hidden = [cell for cell in book.code if BUILT_IN_THE_OPEN not in cell.source]
    return faults(hidden, shadows, "ui has {} too")


def rule_names_of_the_module_exist(book: Book) -> list[str]:
    def unknown(cell: NotebookNode) -> list[str]:
        used = re.findall(r"`ui\.(\w+)", prose(cell))
        for node in ast.walk(tree_of(cell)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ui":
                used.append(node.attr)
        return [name for name in used if not hasattr(ui, name)]

    return faults(book.cells, unknown, "no ui.{}")


Rule = Callable[[Book], list[str]]
RULES: list[Rule] = [rule for name, rule in globals().items() if name[:5] == "rule_"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_notebook(rule: Rule, path: Path) -> None:
    wrong = rule(read_book(path))
    assert not wrong, "\n".join([path.name, *wrong])


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
    codes[3] = f"{BUILT_IN_THE_OPEN}\ndef overlay():\n    return 1"
    codes.append("def answer():\n" + "    size = 1\n" * 40)
    cells = []
    for place, (text, code) in enumerate(zip(texts, codes, strict=True), 1):
        cells.append(new_markdown_cell(text, id=f"text-{place}"))
        cells.append(new_code_cell(code, id=f"code-{place}", execution_count=place))
    cells[5].outputs = [new_output("stream", text="1 2"), FIGURE]
    content = new_notebook(cells=cells, metadata=refresh.METADATA)
    return Book(FOLDER / "01_inspect_masks.ipynb", deepcopy(content), 1000)


def has(**entries: Any) -> Mutation:
    """Replace entries of the book."""
    return lambda book: vars(book).update(entries)


def put(number: int, **entries: Any) -> Mutation:
    """Replace entries of a cell."""
    return lambda book: book.cells[number - 1].update(entries)


def add(number: int, text: str) -> Mutation:
    """Write more source at the end of a cell."""
    return lambda book: put(number, source=book.cells[number - 1].source + text)(book)


def in_all(source: str) -> Mutation:
    """Replace the sources of all code cells."""
    return lambda book: [cell.update(source=source) for cell in book.code]


BROKEN: list[tuple[Rule, Mutation, str]] = [
    (rule_number_follows, has(path=Path("99_a.ipynb")), "98 is missing"),
    (rule_number_follows, has(path=Path("1.ipynb")), "1.ipynb is not like"),
    (rule_stored_as_refreshed, has(size=400_001), "400001"),
    (rule_stored_as_refreshed, has(content=new_notebook()), "metadata"),
    (rule_stored_as_refreshed, put(4, metadata={"a": 1}), "cell 4: .* a"),
    (rule_stored_as_refreshed, put(4, id="code-1"), "cell 2: .*id code-1"),
    (rule_stored_as_refreshed, put(4, outputs=[SVG]), "cell 4: .*svg"),
    (rule_counts_run_from_1, put(4, execution_count=None), "1, None, 3"),
    (rule_no_stderr_and_no_error, put(4, outputs=[STDERR]), "cell 4: stores stderr"),
    (rule_no_stderr_and_no_error, put(4, outputs=[ERROR]), "cell 4: stores error"),
    (rule_no_trace_of_a_machine, put(4, outputs=[ADDRESS]), "cell 4: 0x7f31aa20"),
    (rule_no_trace_of_a_machine, add(3, "/tmp/x"), "cell 3: /tmp/"),
    (rule_every_cell_is_compared, add(4, "  # NBVAL_SKIP"), "cell 4: NBVAL_SKIP"),
    (rule_every_cell_is_compared, put(4, metadata={"tags": ["nbval-skip"]}), "cell 4"),
    (rule_title_and_frame, put(1, source=f"# 02 - A\n\n{FRAME}"), "'# 01 - '"),
    (rule_title_and_frame, put(1, source="# 01 - A\n\n**Time**"), "Prerequisites"),
    (rule_one_title_and_no_jumps, add(3, "\n\n# More"), "2 titles"),
    (rule_one_title_and_no_jumps, add(1, "\n\n### In"), "cell 1: level 3 under 1"),
    (rule_sections, add(23, "## Recap"), "'Answers', 'Recap'"),
    (rule_sections, put(21, source=PROSE), "Break it"),
    (rule_imports_in_the_first_code_cell, add(4, "\nimport os"), "cell 4"),
    (rule_no_three_code_cells_in_a_row, put(3, cell_type="code"), "cell 2: three"),
    (rule_code_is_plain_python, put(4, source="%time a = 1"), "cell 4: not plain"),
    (rule_code_is_plain_python, put(4, source=""), "cell 4: .*empty"),
    (rule_code_is_plain_python, add(4, ";"), "cell 4: not plain Python: .*;"),
    (rule_no_tabs_emoji_or_todo, put(4, source="if a:\n\tb = 1"), r"cell 4: .\\t"),
    (rule_no_tabs_emoji_or_todo, add(3, "done \U0001f389"), "cell 3"),
    (rule_no_tabs_emoji_or_todo, add(4, "  # TODO"), "cell 4: .TODO"),
    (rule_code_cells, put(4, cell_type="markdown"), "11 code cells"),
    (rule_code_cells, add(4, "\na = 1" * 23), "cell 4: over 25"),
    (rule_code_cells, in_all("a = 1"), "median code cell 1"),
    (rule_code_cells, in_all("a = 1\n" * 11), "at most a fifth"),
    (rule_lines_of_code_are_narrow, add(4, "  # " + "x" * 60), "cell 4: over 79"),
    (rule_words_a_line_of_code, add(3, " word" * 500), "words for 30 lines"),
    (rule_words_a_line_of_code, in_all("a = 1\n" * 9), "words for 90 lines"),
    (rule_few_definitions, in_all("def a():\n    b = 1\n\n\na()"), "20 of 30"),
    (rule_figures_are_explained, put(7, source=PROSE), "cell 6: .*What to see"),
    (rule_figures_are_explained, put(6, outputs=[FIGURE]), "cell 6: .*printed"),
    (rule_pictures_have_alt_text, put(7, source="![](a.png)"), "cell 7: .*a.png"),
    (rule_pictures_have_alt_text, put(4, outputs=[NO_ALT]), "cell 4: .*no.png"),
    (rule_links_resolve, put(4, outputs=[NO_ALT]), "cell 4: no.png leads"),
    (rule_links_resolve, add(3, "[a](02_none.ipynb)"), "cell 3: 02_none.ipynb leads"),
    (rule_links_resolve, add(3, "[a](#Who-is-it?)"), "cell 3: #Who-is-it. leads"),
    (rule_definitions_shadow_nothing, add(4, "\ndef show(): ..."), "ui has show too"),
    (rule_names_of_the_module_exist, add(4, "\nui.UMet()"), "cell 4: no ui.UMet"),
    (rule_names_of_the_module_exist, add(3, "`ui.UMet`"), "cell 3: no ui.UMet"),
]


@pytest.mark.parametrize(("rule", "mutate", "fault"), BROKEN)
def test_rule_can_fail(rule: Rule, mutate: Mutation, fault: str) -> None:
    book = good_book()
    assert rule(book) == []
    mutate(book)
    assert re.search(fault, "\n".join(rule(book)))


def test_every_rule_is_seen_to_fail() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(RULES)
