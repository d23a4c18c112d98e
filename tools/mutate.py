"""Plant faults in the module, one at a time, and count those that its tests catch.

python -m tools.mutate --write table.tsv     # 120 faults: an hour or two of one core
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from multiprocessing.pool import ThreadPool
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.faults import draw

ROOT = Path(__file__).parent.parent
MODULE = "ui_segmentation_system.py"
PATIENCE = 120  # seconds beyond what the section's tests take without a fault
# By words of a section's title: its test files, the quick ones first.
TESTS = {
    "masks": "masks classes doctor",
    "pairs|doctor": "pairs classes doctor",
    "transforms": "transforms",
    "unet": "network",
    "losses": "network classes",
    "showing": "masks classes tasks",
    "loaders": "loaders",
    "folders": "voc roads",
    "tiles": "tiles",
    "lightning|training": "training tasks reliability",
    "command line": "command_line reliability",
}


def find_tests(title: str) -> list[str]:
    """Find the test files of a section. Raises ValueError for a title of none."""
    words = [TESTS[words] for words in TESTS if re.search(words, title.lower())]
    if not words:
        raise ValueError(
            f"section {title!r}: expected one of {list(TESTS)} in its title"
        )
    return [f"tests/test_{name}.py" for name in dict.fromkeys(" ".join(words).split())]


def judge(source: str, files: Sequence[str], seconds: float) -> tuple[str, str]:
    """Run test files in a copy of the project: the outcome and what failed first.

    It is "caught" by a test, or a fixture of one, that runs and fails; "broken" where
    the module or a test file cannot even be imported; else "time-out" or "survived".
    """
    with TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        copy, log = Path(scratch, "project"), Path(scratch, "log")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "*cache*"))
        (copy / MODULE).write_text(source, encoding="utf-8")
        env = {"PYTHONPATH": str(copy), "TMPDIR": scratch, "COLUMNS": "300"}
        options = ["-xq", "--tb=no", "-rfE", "-pno:cacheprovider"]
        command = [sys.executable, "-m", "pytest", *options, *files]
        with log.open("wb") as out:
            # A group of its own, so that the workers it may leave end with it.
            start = partial(subprocess.Popen, cwd=copy, process_group=0)
            process = start(command, env=os.environ | env, stdout=out, stderr=out)
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                return "time-out", ""
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        told = log.read_text(encoding="utf-8", errors="replace")
    failed = re.search(r"(?m)^(FAILED|ERROR) \S+::.*", told)
    if code < 0 or (code == 1 and failed):
        return "caught", failed[0] if failed else f"ended by signal {-code}"
    return ("broken", " ".join(told.split())[-200:]) if code else ("survived", "")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="mutate", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the choice")
    parser.add_argument("--count", type=int, default=120, help="faults in all sections")
    parser.add_argument("--jobs", type=int, default=1, help="faults tried at a time")
    parser.add_argument("--section", type=int, help="number of the only one to try")
    parser.add_argument("--write", type=Path, help="file for the table")
    equivalent = "rows of kind, before, after, reason: faults to leave out"
    parser.add_argument("--equivalent", type=Path, help=equivalent)
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests press Ctrl-C
    source = (ROOT / MODULE).read_text(encoding="utf-8")
    given = options.equivalent.read_text(encoding="utf-8") if options.equivalent else ""
    left_out = [row.split("\t")[:3] for row in given.splitlines()]
    table = [["section", "line", "kind", "before", "after", "outcome", "failed first"]]
    chosen = slice(options.section and options.section - 1, options.section)
    for title, share, faults in list(draw(source, options.count, options.seed))[chosen]:
        begin = time.monotonic()
        run = partial(judge, files=find_tests(title))
        outcome, told = run(source, seconds=3600)
        if outcome != "survived":
            parser.exit(2, f"{title}: {outcome} without a fault: {told}\n")
        run = partial(run, seconds=PATIENCE + time.monotonic() - begin)
        planted = (fault.plant(source) for fault in faults)
        kept = (one for one in planted if one[1][1:] not in left_out)
        while batch := list(islice(kept, share)):
            texts, rows = zip(*batch, strict=True)
            with ThreadPool(options.jobs) as pool:
                for row, verdict in zip(rows, pool.imap(run, texts), strict=True):
                    table.append([title, *row, *verdict])
                    print(*table[-1], sep="\t", flush=True)
                    share -= verdict[0] != "broken"
    counts = Counter(row[5] for row in table[1:])
    caught = counts["caught"] + counts["time-out"]
    print(f"caught {caught / (caught + counts['survived']):.1%}: {dict(counts)}")
    if options.write:
        lines = ["\t".join(row) + "\n" for row in table]
        options.write.write_text("".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
