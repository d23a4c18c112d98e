"""What the benchmarks share: fair timing, Markdown tables, the README's block."""

import argparse
import itertools
import os
import re
import textwrap
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

import torch
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "test_inputs"
README = ROOT / "README.md"
START, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"

Made = TypeVar("Made")
Name = TypeVar("Name", bound=Hashable)


class Cost(NamedTuple):
    """What running something once took, in seconds."""

    cpu: float
    wall: float


def cost_of(task: Callable[[], object]) -> Cost:
    """Run a task once and take its time, CPU time over all threads of the process."""
    cpu, wall = time.process_time(), time.perf_counter()
    task()
    return Cost(time.process_time() - cpu, time.perf_counter() - wall)


def run_in_turn(
    tasks: Mapping[Name, Callable[[], object]], rounds: int, warm_up: int = 1
) -> dict[Name, list[Cost]]:
    """Run tasks A B C A B C ..., so that a busy minute of the machine hits them all.

    warm_up: how often a task runs uncounted at the start of each of its turns, so that
    it finds memory and caches as it left them itself. Raises ValueError without rounds.
    """
    check_rounds(rounds)
    costs: dict[Name, list[Cost]] = {name: [] for name in tasks}
    with tqdm(total=rounds * len(tasks), desc="timing") as bar:
        for _ in range(rounds):
            for name, task in tasks.items():
                for _ in range(warm_up):
                    task()
                costs[name].append(cost_of(task))
                bar.update()
    return costs


def check_rounds(rounds: int) -> None:
    """Raise ValueError where nothing would be measured."""
    if rounds < 1:
        raise ValueError(f"rounds {rounds}: expected 1 or more")


def relative(
    costs: Mapping[Name, Sequence[Made]],
    base: Name,
    ratio: Callable[[Made, Made], float],
) -> dict[Name, float]:
    """Compare what was taken with `base` in the same round; the median over rounds."""
    return {
        name: median(itertools.starmap(ratio, zip(taken, costs[base], strict=True)))
        for name, taken in costs.items()
    }


def relative_cpu(costs: Mapping[Name, Sequence[Cost]], base: Name) -> dict[Name, float]:
    """Divide CPU times by those of `base` in the same round; the median over rounds."""
    return relative(costs, base, lambda cost, unit: cost.cpu / unit.cpu)


def seeded(seed: int, make: Callable[[], Made]) -> Made:
    """Call `make` with torch's generator at `seed`, and leave the generator alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Draw a Markdown table, the first column to the left, numbers to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


def write_section(name: str, text: str, readme: Path = README) -> None:
    """Put a benchmark's text into the README's block, in the place of its last one.

    The file is written beside and moved into place. Raises as `check_block` does.
    """
    page = check_block(readme)
    before, rest = page.split(START)
    block, after = rest.split(END)
    section = f"<!-- {name} -->\n\n{text.strip()}\n\n<!-- /{name} -->\n"
    old = re.compile(rf"<!-- {name} -->.*?<!-- /{name} -->\n", re.DOTALL)
    if old.search(block):
        block = old.sub(lambda _: section, block)
    else:
        block = f"{block.rstrip()}\n\n{section}"
    beside = readme.with_name(f".{readme.name}.part")
    beside.write_text(f"{before}{START}{block}{END}{after}", encoding="utf-8")
    os.replace(beside, readme)


def check_block(readme: Path = README) -> str:
    """Read a page that has the benchmarks' two marks, else raise.

    FileNotFoundError without the file, ValueError without exactly one of each mark.
    """
    if not readme.is_file():
        raise FileNotFoundError(f"{readme.name}: no such file; --write fills its block")
    page = readme.read_text(encoding="utf-8")
    if page.count(START) != 1 or page.count(END) != 1 or END in page.split(START)[0]:
        raise ValueError(
            f"{readme.name}: expected one {START} and after it one {END}; add them "
            "where the tables shall stand"
        )
    return page


def paragraph(text: str) -> str:
    """Break a note into lines as the README's are."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def start(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> argparse.Namespace:
    """Read the command line with --write added; one thread from here on."""
    parser.add_argument(
        "--write", action="store_true", help="replace this table in README.md as well"
    )
    options = parser.parse_args(argv)
    if options.write:
        check_block()
    torch.set_num_threads(1)
    return options


def run_command(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    name: str,
    make_text: Callable[[argparse.Namespace], str],
) -> int:
    """Be a benchmark's command: print its text, with --write into the README too.

    Bad input ends in one line on stderr and SystemExit(2).
    """
    try:
        options = start(parser, argv)
        text = make_text(options)
        print(text)
        if options.write:
            write_section(name, text)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0
