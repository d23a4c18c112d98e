"""Describe a module in Markdown for Sphinx, from its source, without importing it."""

import ast
import json
import re
from pathlib import Path

RULE = "# " + "-" * 86
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
LESSONS = {path.name[:2]: path.name for path in NOTEBOOKS.glob("*.ipynb")}
# In prose: an example, a name, an address, a lesson, and what Markdown would take for
# markup.
MARKED = re.compile(
    r"(?m)^    .*$|`(?P<name>[^`]+)`|(?P<url>https?://[^\s)]*[^\s).,;])"
    r"|notebooks? (?P<lesson>\d\d)|(?P<mark>[*<\[$])"
)


def to_markdown(prose: str) -> str:
    """Turn plain prose into Markdown; names in backticks and lessons become links."""

    def mark_up(match: re.Match[str]) -> str:
        found = match[0]
        if (match["name"] or "").isidentifier():
            return f"{{py:obj}}{found}"
        if match["lesson"] in LESSONS:
            return f"[{found}](../notebooks/{LESSONS[match['lesson']]})"
        return f"<{found}>" if match["url"] else "\\" * bool(match["mark"]) + found

    return MARKED.sub(mark_up, prose)


def signature(node: ast.FunctionDef | ast.ClassDef) -> str:
    """Give what stands in the brackets of a call, with types and defaults."""
    if isinstance(node, ast.FunctionDef):
        arguments = re.sub(r"^(self|cls)(, |$)", "", ast.unparse(node.args))
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"({arguments})" + returns * (node.name != "__init__")
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            return signature(member)
    fields = [member for member in node.body if isinstance(member, ast.AnnAssign)]
    for member in fields:  # of a call such as field(default, ...), the default
        if isinstance(member.value, ast.Call):
            member.value = [*member.value.args, ast.Constant(...)][0]
    return f"({', '.join(map(ast.unparse, fields))})" if fields else ""


def meanings(node: ast.ClassDef) -> str:
    """List what the fields of a class mean, of name: type = setting(default, text)."""
    text = ""
    for member in node.body:
        match member:
            case ast.AnnAssign(
                ast.Name(name), _, ast.Call(_, [_, ast.Constant(say), *_])
            ):
                text += f"- `{name}`: {to_markdown(say)}\n"
    return "\n\n" * bool(text) + text


def constant(node: ast.Assign | ast.AnnAssign, lines: list[str]) -> tuple[str, str]:
    """Give the name of a constant; its value, if short, and the comment above it."""
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    value, text, above = ast.unparse(node.value), "", node.lineno - 2
    while lines[above].startswith("# ") and lines[above] != RULE:
        text, above = f"{to_markdown(lines[above][2:])}\n{text}", above - 1
    if len(value) < 72:
        text = f":value: {json.dumps(value)}\n\n{text}"
    return ast.unparse(target), text * (not value.startswith("_"))


def describe(node: ast.stmt, lines: list[str], owner: str = "") -> str:
    """Describe a public name in Markdown; private or undocumented ones are empty."""
    kind, name, brackets, text = "data", "", "", ""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        name, text = node.name, to_markdown(ast.get_docstring(node) or "")
        kind = "method" if owner else "function"
        if isinstance(node, ast.ClassDef):
            kind, text = "class", text + meanings(node)
        properties = "property" in map(ast.unparse, node.decorator_list)
        kind, brackets = ("property", "") if properties else (kind, signature(node))
    elif isinstance(node, ast.Assign | ast.AnnAssign) and not owner:
        name, text = constant(node, lines)
    if not text or name.startswith("_"):
        return ""
    if kind == "class":
        members = (describe(member, lines, f"{name}.") for member in node.body)
        text += "\n\n" + "".join(members)
    fence = "`" * (4 if owner else 5)
    return f"{fence}{{py:{kind}}} {owner}{name}{brackets}\n{text}\n{fence}\n\n"


def reference(name: str, source: str) -> str:
    """Describe a module's public names in Markdown, by the sections of the file."""
    module, lines = ast.parse(source), source.splitlines()
    parts = [to_markdown(ast.get_docstring(module) or "")]
    parts += [f"\n```{{py:module}} {name}\n```\n"]
    heads = [n for n in range(2, len(lines)) if lines[n] == lines[n - 2] == RULE]
    for node in module.body[1:]:
        while heads and heads[0] < node.lineno:
            parts.append(f"## {to_markdown(lines[heads.pop(0) - 1][2:])}\n")
        parts.append(describe(node, lines))
    return "\n".join(parts)
