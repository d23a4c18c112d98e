"""Compare the module's commands, each from the start of its process to its end.

python -m benchmarks.startup                    # two minutes
python -m benchmarks.startup --base FILE        # beside the module of another checkout
"""

import argparse
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks import measure

MODULE = measure.ROOT / "ui_segmentation_system.py"


def make_text(options: argparse.Namespace) -> str:
    """Time the commands of the module, beside those of the base if there is one."""
    modules, rows = [MODULE, *filter(None, [options.base])], []
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    run = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL, env=env)
    with tempfile.TemporaryDirectory() as folder:
        picture = measure.PICTURES / "1_input.png"
        out = ["-o", folder, "--overwrite"]
        for name, words in {
            "`--help`": ["--help"],
            "`check test_inputs`": ["check", measure.PICTURES],
            "`predict` of one picture": ["predict", picture, *out],
        }.items():
            tasks = {}
            for module in modules:
                command = [sys.executable, module, *words]
                tasks[module] = partial(measure.cost_of, partial(run, command))
            costs = measure.run_in_turn(tasks, options.rounds)
            row = [f"{measure.medians(costs[module]).cpu:.1f}" for module in modules]
            if options.base:
                row.append(f"{measure.ratios(costs, options.base)[MODULE]:.2f}")
            rows.append([name, *row])
    header = ["command", "CPU seconds", "of the base", "ratio"][: 2 * len(modules)]
    return measure.markdown_table(header, rows)


if __name__ == "__main__":
    base = {"type": Path, "help": "another copy of the module, to compare with"}
    measure.run_command("startup", __doc__, make_text, 5, base=base)
