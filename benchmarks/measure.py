"""What the benchmarks share: fair timing, ratios, tables, and the command line."""

import argparse
import resource
import subprocess
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeVar

import torch
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "test_inputs"
PAGE = Path(__file__).with_name("README.md")

Result = TypeVar("Result")
Name = TypeVar("Name", bound=Hashable)


class Cost(NamedTuple):
    """What a task took: seconds of CPU and by the clock, bytes where they are told."""

    cpu: float
    wall: float
    memory: float = 0


def cpu_seconds() -> float:
    """CPU time so far: all threads of this process, and its children that are gone."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def cost_of(task: Callable[[], object], warm_up: int = 0) -> Cost:
    """Time a task after `warm_up` runs: it finds memory and caches as it left them."""
    for _ in range(warm_up):
        task()
    cpu, wall = cpu_seconds(), time.perf_counter()
    task()
    return Cost(cpu_seconds() - cpu, time.perf_counter() - wall)


def in_fresh_process(task: Callable[..., Result], *arguments: Any) -> Result:
    """Run a task in a new process with one thread, and give its result or error."""
    new, one_thread = get_context("spawn"), torch.set_num_threads
    with ProcessPoolExecutor(1, new, one_thread, (1,)) as process:
        return process.submit(task, *arguments).result()


def run_in_turn(
    tasks: Mapping[Name, Callable[[], Result]], rounds: int
) -> dict[Name, list[Result]]:
    """Run tasks A B C C B A A B C ..., so that a busy minute of the machine hits all.

    Gives the results of each task, one a round.
    """
    results: dict[Name, list[Result]] = {name: [] for name in tasks}
    with tqdm(total=rounds * len(tasks), desc="measuring") as bar:
        for number in range(rounds):
            for name in list(tasks)[:: -1 if number % 2 else 1]:
                results[name].append(tasks[name]())
                bar.update()
    return results


def ratios(
    results: Mapping[Name, Sequence[Result]],
    base: Name,
    value: Callable[[Result], float] = lambda cost: cost.cpu,
) -> dict[Name, float]:
    """Divide values by those of `base` in the same round; the medians over rounds."""
    units = [value(result) for result in results[base]]
    return {
        name: median(value(one) / unit for one, unit in zip(taken, units, strict=True))
        for name, taken in results.items()
    }


def medians(results: Sequence[Result]) -> Result:
    """Take the median over rounds of each field of a named tuple."""
    return type(results[0])(*map(median, zip(*results, strict=True)))


def seeded(seed: int, make: Callable[[], Result]) -> Result:
    """Call `make` with torch's generator at `seed`, and leave the generator alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Draw a Markdown table, the first column to the left, numbers to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


def write_block(name: str, text: str | None) -> None:
    """Replace what stands between a benchmark's two marks in the page.

    None only checks them: ValueError unless both are there once and in order.
    """
    page = PAGE.read_text(encoding="utf-8")
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = page.partition(start)
    if page.count(start) != 1 or page.count(end) != 1 or end not in rest:
        raise ValueError(f"{PAGE.name}: expected one {start} and after it one {end}")
    if text is not None:
        page = f"{before}{start}\n\n{text}\n\n{rest[rest.index(end) :]}"
        PAGE.write_text(page, encoding="utf-8")


def run_command(
    name: str,
    doc: str,
    make_text: Callable[[argparse.Namespace], str],
    rounds: int,
    argv: Sequence[str] | None = None,
    **flags: Mapping[str, Any],
) -> None:
    """Be the command `python -m benchmarks.NAME`: print its text, on one thread.

    rounds: default of --rounds. flags: more of them, with what `add_argument` takes.
    Bad input ends in one line on stderr and SystemExit(2).
    """
    prog = f"python -m benchmarks.{name}"
    parser = argparse.ArgumentParser(prog, argparse.SUPPRESS, doc.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="times of each")
    for flag, settings in flags.items():
        parser.add_argument(f"--{flag}", **settings)
    parser.add_argument("--write", action="store_true", help="write into the README")
    options = parser.parse_args(argv)
    for flag, value in vars(options).items():
        if type(value) is int and value < (least := min(1, parser.get_default(flag))):
            parser.error(f"--{flag} {value}: expected {least} or more")
    torch.set_num_threads(1)
    try:
        if options.write:
            write_block(name, None)
        text = make_text(options)
        print(text)
        if options.write:
            write_block(name, text)
    except ImportError as error:
        parser.error(f"{error}; run: pip install -r benchmarks/requirements.txt")
    except (ValueError, OSError, subprocess.SubprocessError) as error:
        parser.error(str(error))
