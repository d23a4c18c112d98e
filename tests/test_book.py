"""The book, as far as it can be judged without building it, and the README."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
INDEX = (DOCS / "index.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
PAGES = [*NOTEBOOKS, *sorted(DOCS.glob("*.md")), *sorted(ROOT.glob("*.md"))]
# As docs/conf.py has it, none of a hidden folder: pytest's cache has a README.md, too.
PAGES += [*sorted(ROOT.glob("[!.]*/README.md")), *sorted(ROOT.glob("*/LICENSE.md"))]


@pytest.fixture(autouse=True)
def _docs_importable(monkeypatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(DOCS)
    yield
    for name in "conf", "reference":
        sys.modules.pop(name, None)


def contents() -> list[Path]:
    """List the pages in the contents, in their order; docs/index.md itself is first."""
    pages = [DOCS / "index.md"]
    for tree in re.findall(r"(?s)```\{toctree\}\n(.+?)```", INDEX):
        for line in tree.splitlines():
            entry = re.sub(r".+<(.+)>", r"\1", line)
            if entry and not entry.startswith(":"):
                base = ROOT if entry.startswith("/") else DOCS
                found = sorted(base.glob(entry.lstrip("/") + ".*"))
                found = [page for page in found if page.suffix in {".md", ".ipynb"}]
                assert found, f"docs/index.md: no page {entry}"
                pages += found
    return [page.resolve() for page in pages]


def markdown(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "markdown"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    return re.sub(r"(?ms)^```.*?^```|`[^`\n]+`", "", text)


def test_every_lesson_and_page_is_in_the_contents_once() -> None:
    pages = contents()
    assert [page for page in pages if page.suffix == ".ipynb"] == NOTEBOOKS
    assert sorted(pages) == sorted(PAGES)
    assert [p for p in NOTEBOOKS if f"(notebooks/{p.name})" not in README] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_points_to_a_missing_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)|\bsrc=[\"']([^\"']+)", markdown(page))
    for link in map("".join, links):
        path = unquote(link).partition("#")[0]
        if path and not re.match(r"\w+:", path):
            target = page.parent / path
            assert target.is_file(), f"{page.name}: {link} is no file"
            assert target.resolve().is_relative_to(ROOT)


@pytest.mark.parametrize("name", ["requirements.txt", "docs/requirements.txt"])
def test_requirements_are_exact(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    packages = [line for line in lines if line and not line.startswith(("#", "-e"))]
    assert packages and "torch==2.13.0" not in packages
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", line) for line in packages)


def test_ci_and_both_commands_of_the_readme_install_the_same_way() -> None:
    lines = [line.strip() for line in README.splitlines() if line.startswith("    ")]
    endings = "pytest --nbval", "01_inspect_masks.ipynb"
    test, read = (
        next(line for line in lines if line.endswith(end) and "&&" in line)
        for end in endings
    )
    assert test in (ROOT / ".ci/run").read_text().splitlines()
    install = "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"
    assert {line.rpartition(" && ")[0] for line in (test, read)} == {install}


def test_the_command_is_the_same_everywhere_and_what_it_makes_is_ignored() -> None:
    command = "python -m sphinx -M html . docs/_build -c docs -W"
    places = "docs/conf.py", "CONTRIBUTING.md", ".github/workflows/book.yml"
    for place in places:
        text = " ".join((ROOT / place).read_text(encoding="utf-8").split())
        assert command in text, place
    assert "docs/_build/" in (ROOT / ".gitignore").read_text().splitlines()


def test_what_jupyterlab_folds_is_folded() -> None:
    import conf

    folded = {"tags": ["tolerance=0.02"], "jupyter": {"outputs_hidden": True}}
    cells = [{}, {"jupyter": {}}, folded, {"jupyter": {"source_hidden": True}}]
    notebook = {"cells": [{"metadata": metadata} for metadata in cells]}
    conf.fold(notebook)
    tags = [cell["metadata"].get("tags") for cell in notebook["cells"]]
    assert tags == [None, None, ["tolerance=0.02", "hide-output"], ["hide-input"]]
    for path in NOTEBOOKS:  # below each "Predict first"
        notebook = json.loads(path.read_text(encoding="utf-8"))
        conf.fold(notebook)
        tags = [cell["metadata"].get("tags", []) for cell in notebook["cells"]]
        assert sum("hide-output" in cell for cell in tags) >= 2, path.name


SOURCE = '''"""A *module* of [odd] <prose>: `first_thing`, https://a.b/c."""

# {rule}
# 1. Things. (notebook 01)
# {rule}

# How many
# there are.
COUNT = 3
_HIDDEN = 4
private = _made()


@dataclass
class Thing(Base):
    """A thing."""

    size: int = _setting(2, "how *large*", "-s")
    name: str = field(default="")

    def first_thing(self, a: int, *, b: str = "x") -> list[int]:
        """Do `it`; 2 * 3.

            as * in an example
        Prose.
        """

    def undocumented(self): ...

    @property
    def best(self) -> int:
        """The best."""

    def _private(self):
        """Not shown."""
'''


def test_the_reference_shows_public_names_by_section() -> None:
    from reference import LESSONS, RULE, reference

    text = reference("m", SOURCE.replace("# {rule}", RULE))
    head = r"A \*module\* of \[odd] \<prose>: {py:obj}`first_thing`, <https://a.b/c>."
    assert text.startswith(head)
    assert f"## 1. Things. ([notebook 01](../notebooks/{LESSONS['01']}))" in text
    shown = re.findall(r"(?m)^`+\{py:(\w+)\} (.+)$", text)
    assert shown == [
        ("module", "m"),
        ("data", "COUNT"),
        ("class", "Thing(size: int = 2, name: str = ...)"),
        ("method", "Thing.first_thing(a: int, *, b: str='x') -> list[int]"),
        ("property", "Thing.best"),
    ]
    assert ':value: "3"\n\nHow many\nthere are.\n' in text
    assert r"- `size`: how \*large\*" in text
    assert "{py:obj}`it`; 2 \\* 3.\n\n    as * in an example" in text
    assert "Not shown" not in text


def test_the_reference_knows_every_public_function_of_the_module() -> None:
    from reference import reference

    source = (ROOT / "ui_segmentation_system.py").read_text(encoding="utf-8")
    text = reference("ui_segmentation_system", source)
    for name in re.findall(r"(?m)^(?:def|class) ([a-zA-Z]\w*)[(:]", source):
        assert re.search(rf"(?m)^`{{5}}{{py:\w+}} {name}\b", text), name
    assert len(re.findall(r"(?m)^## \d+\. ", text)) == 13
