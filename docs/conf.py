"""The book: the notebooks as they are stored, other pages, a reference of the module.

python -m pip install -r docs/requirements.txt
python -m sphinx -M html . docs/_build -c docs -W

The folder of sources is the whole repository, so links between files work as they stand
there, and nothing is copied. REPOSITORY_URL, if set, gets a button on each page.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))
from reference import reference

MODULE = ROOT / "ui_segmentation_system.py"

project = "Find the user interface in a screenshot"
author = "the ui-segmentation-system maintainers"
extensions = ["myst_nb"]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "notebooks/*.ipynb", "*.md", "*/README.md"]
include_patterns += ["*/LICENSE.md"]
exclude_patterns = [".*", "docs/_build", "build"]
nb_execution_mode = "off"
nb_code_prompt_show = "Show the {type}"
nb_code_prompt_hide = "Hide the {type}"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"
html_theme = "sphinx_book_theme"
html_title = project
html_theme_options = {"navbar_persistent": []}  # the search is in the side bar
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system
html_static_path = html_css_files = ["book.css"]
smartquotes = False
if address := os.environ.get("REPOSITORY_URL"):
    html_theme_options |= {"repository_url": address, "use_repository_button": True}
add_module_names = False
python_maximum_signature_line_length = 72
toc_object_entries_show_parents = "hide"


def fold(notebook: dict) -> None:
    """Fold in the book what JupyterLab folds, such as outputs to predict first."""
    for cell in notebook["cells"]:
        for hidden, tag in ("outputs", "hide-output"), ("source", "hide-input"):
            if cell["metadata"].get("jupyter", {}).get(f"{hidden}_hidden"):
                cell["metadata"].setdefault("tags", []).append(tag)


def read_source(app, docname: str, content: list[str]) -> None:
    """Change what Sphinx has read of a page, before it is parsed."""
    if str(app.env.doc2path(docname)).endswith(".ipynb"):
        notebook = json.loads(content[0])
        fold(notebook)
        content[0] = json.dumps(notebook)
    elif docname == "docs/module":
        app.env.note_dependency(MODULE)
        content[0] += "\n" + reference(MODULE.stem, MODULE.read_text(encoding="utf-8"))


def check_links(app, exception: Exception | None) -> None:
    """Warn of links to nothing; what outputs of notebooks show is put beside them."""
    from sphinx.util.logging import getLogger

    out = Path(app.outdir).resolve()
    start = '<meta http-equiv="refresh" content="0; url=docs/index.html">'
    (out / "index.html").write_text(start, encoding="utf-8")
    files = [path for path in out.rglob("*.html") if "_static" not in path.parts]
    pages = {path: path.read_text(encoding="utf-8") for path in files}
    for page, text in pages.items():
        for link in sorted({*re.findall(r'\s(?:href|src)="([^"]+)"', text)}):
            if re.match(r"[a-z]+:|//", link):
                continue
            name, _, anchor = unquote(link).partition("#")
            target = (page.parent / name.partition("?")[0]).resolve() if name else page
            kept = ROOT / os.path.relpath(target, out)
            if not target.exists() and out in target.parents and kept.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(kept, target)
            known = not anchor or f'id="{anchor}"' in pages.get(target, "")
            if not target.exists() or not known:
                getLogger(__name__).warning("%s: a link to no %s", page.name, link)


def visit_math(translator, node) -> None:
    """Write a formula as MathML, which needs no script from elsewhere."""
    from docutils import nodes
    from docutils.utils.math.latex2mathml import tex2mathml

    block = isinstance(node, nodes.math_block)
    formula = tex2mathml(node.astext(), as_block=block)
    applied = r"<mo>&ApplyFunction;</mo>(?!\s*<mo[^>]*>\()"  # log p, but log(p)
    formula = re.sub(applied, '<mspace width="0.17em"></mspace>', formula)
    translator.body.append(formula)
    raise nodes.SkipNode


def setup(app) -> None:
    """Tie the functions above to Sphinx."""
    visitors = (visit_math, None), (visit_math, None)
    app.add_html_math_renderer("mathml", *visitors)
    app.connect("source-read", read_source)
    app.connect("build-finished", check_links)
