"""Measure how much of a file one must read to know what a name in it does.

    python -m tools.trail ui_segmentation_system.py [NAME ...]

The trail of a name is its definition and every other definition of the same file that
it refers to, directly or through others.
"""

import ast
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tools.command import Command

DEFINITION = ast.FunctionDef | ast.ClassDef


def show(file: Path, wanted: Sequence[str]) -> None:
    """Print a line for each name wanted, the longest trail first, and totals."""
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    names, nodes = {}, list(ast.walk(tree))
    for node in tree.body:  # functions, classes and constants
        if isinstance(node, DEFINITION):
            names[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {t.id: node for t in targets if isinstance(t, ast.Name)}
    if unknown := set(wanted) - names.keys():
        raise ValueError(f"no {', '.join(sorted(unknown))} at the top of the file")
    lines, references = {}, {}
    for name, node in names.items():
        decorators = [part.lineno for part in getattr(node, "decorator_list", [])]
        lines[name] = node.end_lineno - min([node.lineno, *decorators]) + 1
        used = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        references[name] = used & names.keys() - {name}

    defined = [name for name, node in names.items() if isinstance(node, DEFINITION)]
    private = [name for name in defined if name.startswith("_")]
    rows = []
    for name in wanted or [name for name in defined if name not in private]:
        trail, further = set(), {name}
        while further:
            trail |= further
            further = set().union(*(references[step] for step in further)) - trail
        size, count = sum(map(lines.get, trail)), len(trail.intersection(defined))
        rows.append((size, f"{name:34} {count:4} definitions {size:5} lines"))
    for _, row in sorted(rows, reverse=True):
        print(row)

    # Used once: a private name by one other definition, a private method behind a dot.
    uses = Counter(name for used in references.values() for name in used)
    dots = Counter(node.attr for node in nodes if isinstance(node, ast.Attribute))
    methods = re.findall(r"(?m)^    def (_(?!_)\w+)", text)
    public = len(defined) - len(private)
    print(f"{len(text.splitlines())} lines, {public} public names")
    for kind, found, count in (("names", private, uses), ("methods", methods, dots)):
        once = [name for name in found if count[name] <= 1]
        told = f"{len(once)} of {len(found)} private {kind} used once"
        print(f"{told}: {', '.join(once) or 'none'}")


main = Command(show)
main.add("file", Path, "Python file, such as the module")
main.add("wanted", str, "defined at its top; all if none", nargs="*")

if __name__ == "__main__":
    raise SystemExit(main())
