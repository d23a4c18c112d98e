"""Plant faults in the module, one at a time, and count those that its tests catch.

A fault is another operator, bound or number, a dropped line or swapped arguments, drawn
from every section. Its section's test files run in a copy of the project until one test
fails. A row of the table: section, line, kind, the text before and after, the outcome
and the test that failed first.
"""

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
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.command import Command
from tools.faults import draw

ROOT = Path(__file__).parent.parent
MODULE = "ui_segmentation_system.py"
PATIENCE = 120  # seconds beyond what the section's tests take without a fault
# By words of a section's title: its test files, the quick ones first.
TESTS = {
    "masks": "masks frozen pairs classes doctor",
    "pairs": "pairs transforms frozen training",
    "transforms": "transforms frozen pairs",
    "unet": "network frozen",
    "losses": "network classes frozen training",
    "showing": "masks classes transforms tasks",
    "training": "training optimizer tasks frozen any_network reliability",
    "folders": "classes frozen roads voc",
    "doctor": "doctor frozen roads",
    "loaders": "loaders",
    "tiles": "tiles frozen",
    "command line": "command_line tasks reliability",
}


def find_tests(title: str) -> list[str]:
    """Find the test files of a section. Raises ValueError for a title of none."""
    names = [TESTS[words] for words in TESTS if words in title.lower()]
    if len(names) != 1:
        raise ValueError(f"section {title!r}: expected one of {', '.join(TESTS)} in it")
    return [f"tests/test_{name}.py" for name in names[0].split()]


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
        # In one process: xdist says "interrupted" where a test fails.
        command = [sys.executable, "-m", "pytest", *files, "-xq", "-oaddopts="]
        command += ["--tb=no", "-rfE", "-pno:cacheprovider"]
        with log.open("wb") as out:
            # A group of its own, so that the workers it may leave end with it.
            options = {"cwd": copy, "env": os.environ | env, "process_group": 0}
            process = subprocess.Popen(command, stdout=out, stderr=out, **options)
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


def try_faults(
    count: int, seed: int, write: Path | None, equivalent: Path | None
) -> None:
    """Plant faults and print the table, row by row."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests press Ctrl-C
    source = (ROOT / MODULE).read_text(encoding="utf-8")
    given = equivalent.read_text(encoding="utf-8") if equivalent else ""
    left_out = [row.split("\t")[:3] for row in given.splitlines()]
    table = [["section", "line", "kind", "before", "after", "outcome", "failed first"]]
    for _, title, share, faults in draw(source, count, seed):
        begin, files = time.monotonic(), find_tests(title)
        outcome, told = judge(source, files, 3600)
        if outcome != "survived":
            raise ValueError(f"{title}: {outcome} without a fault: {told}")
        limit = PATIENCE + time.monotonic() - begin
        for text, row in (fault.plant(source) for fault in faults):
            if share and row[1:] not in left_out:
                outcome, told = judge(text, files, limit)
                table.append([title, *row, outcome, told])
                print(*table[-1], sep="\t", flush=True)
                share -= outcome != "broken"  # and another is tried instead
    counts = Counter(row[5] for row in table[1:])
    caught = counts["caught"] + counts["time-out"]
    print(f"caught {caught} of {caught + counts['survived']}: {dict(counts)}")
    if write:
        lines = ["\t".join(row) + "\n" for row in table]
        write.write_text("".join(lines), encoding="utf-8")


main = Command(try_faults)
main.add("--count", int, "faults in all sections", 120)
main.add("--seed", int, "another draws other faults", 0)
main.add("--write", Path, "file for the table, tabs between columns")
leave = "file of faults that change nothing, to leave out: kind, before, after, why"
main.add("--equivalent", Path, leave)

if __name__ == "__main__":
    raise SystemExit(main())
