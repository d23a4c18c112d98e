"""Faults for `mutate.py` to plant: what may be wrong in a source, drawn by section."""

import ast
import random
import re
from collections.abc import Iterator
from itertools import accumulate, zip_longest
from typing import NamedTuple

LEAST = 5  # faults in a section, however short

# What is replaced is sought in code as `ruff format` spaces it, with ` for what stays.
NAME = r"([\w.]+(?:\[[^][`]*\]|\([^()`]*\))?)"
CALL = r"(?<=\w\()(?<!max\()(?<!min\()"  # their arguments may change places
STEP = r"raise\b|yield\b|[\w.]+\(|[\w.]+(\[.*\]|\.\w+) = |\w+ .= |(\w+) = .*\b\3\b"
RULES = [
    ("comparison", r" (<|>) ", r" \1= "),
    ("comparison", r" (<|>)= ", r" \1 "),
    ("comparison", r" == ", " != "),
    ("comparison", r" != ", " == "),
    ("comparison", r" is not ", " is "),
    ("comparison", r" is (?!not)", " is not "),
    ("comparison", r" not in ", " in "),
    ("comparison", rf"\b(if|and|or|return) {NAME} in ", r"\1 \2 not in "),
    ("arithmetic", r" \+(=?) ", r" -\1 "),
    ("arithmetic", r" -(=?) ", r" +\1 "),
    ("arithmetic", r" (//?|%) ", " * "),
    ("arithmetic", r" \* ", " / "),
    ("constant", r"(?<![\w.])\d[\d_]*(?![\w.])", lambda found: str(int(found[0]) + 1)),
    ("constant", r"(?<![\w.])\d[\d_]*(?![\w.])", lambda found: str(int(found[0]) - 1)),
    ("constant", r"(?<![\w.])\d+(\.\d+|e-\d+)", lambda found: str(float(found[0]) * 2)),
    ("boolean", r"\band\b", "or"),
    ("boolean", r"\bor\b", "and"),
    ("boolean", r"(?<!is )\bnot (?!in )", ""),
    ("swapped arguments", rf"{CALL}{NAME}, {NAME}(?=[,)])", r"\2, \1"),
    ("dropped line", rf"^( +)(?:{STEP}).*(?:\n\1(?: .*|[]\)}}`].*))*$", r"\1pass"),
]


class Fault(NamedTuple):
    """What stands between two places of the source becomes `new`."""

    kind: str
    start: int
    end: int
    new: str

    def plant(self, source: str) -> tuple[str, list[str]]:
        """Give the faulty source, no line moved, and line, kind, text before, after."""
        start, end = source.rindex("\n", 0, self.start), source.index("\n", self.end)
        pad = "\n" * (source.count("\n", self.start, self.end) - self.new.count("\n"))
        before = source[start:end]
        after = source[start : self.start] + self.new + pad + source[self.end : end]
        texts = [" ".join(text.split()) for text in (before, after)]
        row = [str(source.count("\n", 0, self.start) + 1), self.kind, *texts]
        return source[:start] + after + source[end:], row


def find_faults(source: str) -> list[Fault]:
    """List the faults that can be planted, but none in text, messages and types."""
    starts = [0, *accumulate(len(line) + 1 for line in source.split("\n"))]
    code = source
    for node in ast.walk(ast.parse(source)):
        parts = [getattr(node, name, None) for name in ("annotation", "returns", "exc")]
        is_text = isinstance(getattr(node, "value", None), str)
        parts += [node] if is_text or isinstance(node, ast.JoinedStr) else []
        for part in filter(None, parts):
            start = starts[part.lineno - 1] + part.col_offset
            end = starts[part.end_lineno - 1] + part.end_col_offset
            code = code[:start] + re.sub(r"\S", "`", code[start:end]) + code[end:]
    code = re.sub("#.*", lambda found: "`" * len(found[0]), code)
    return [
        Fault(kind, *found.span(), new(found) if callable(new) else found.expand(new))
        for kind, old, new in RULES
        for found in re.finditer(old, code, re.MULTILINE)
    ]


def draw(
    source: str, count: int, seed: int
) -> Iterator[tuple[int, str, int, list[Fault]]]:
    """Give each section's number, title, share of the count, and faults in their order.

    A section is "# 1. Title: ..." under a rule; shares go by lines of code. The kinds
    of fault take turns.
    """
    found = list(re.finditer(r"(?m)^# -+\n# (\d+)\. ([^:\n]+)", source))
    ends = [*(match.start() for match in found[1:]), len(source)]
    spans = [(match.end(), end) for match, end in zip(found, ends, strict=True)]
    sizes = [len(re.findall(r"(?m)^ *[^\s#]", source[slice(*span)])) for span in spans]
    shares = [min(LEAST, count // len(found))] * len(found)
    while sum(shares) < count:
        shares[max(range(len(found)), key=lambda i: sizes[i] / (shares[i] + 1))] += 1
    faults = find_faults(source)
    for match, (start, end), share in zip(found, spans, shares, strict=True):
        inside = [fault for fault in faults if start < fault.start < end]
        kinds: dict[str, list[Fault]] = {}
        for fault in random.Random(seed).sample(inside, len(inside)):
            kinds.setdefault(fault.kind, []).append(fault)
        turns = zip_longest(*kinds.values())
        order = [fault for turn in turns for fault in turn if fault]
        yield int(match[1]), match[2], share, order
