"""What lessons 06, 07, 09, 10 and 12 import: scores of small trainings by seed.

The table is made by `python -m benchmarks.small_trainings`.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

TABLE = Path(__file__).parents[1] / "benchmarks" / "small_trainings.csv"


def read(experiment: str) -> pd.DataFrame:
    """Read the rows of an experiment: a variant, a seed and its scores in each."""
    table = pd.read_csv(TABLE)
    return table[table.experiment == experiment]


def draw(
    experiment: str, limits: tuple[float, float] = (0, 1), by_kind: bool = False
) -> None:
    """Draw and print the IoU of each variant: a dot a seed, a stroke for what has none.

    limits: of the IoU axis. by_kind: one colour for names alike up to the comma.
    """
    groups = list(read(experiment).groupby("variant", sort=False))
    plt.figure(figsize=(6, 0.3 * len(groups) + 0.6))
    colours: dict[str, str] = {}
    for place, (name, rows) in enumerate(groups):
        mark = dict(marker="|", color="black")
        if len(rows) > 1:
            kind = name.partition(", ")[0] if by_kind else name
            mark = dict(marker="o", color=colours.setdefault(kind, f"C{len(colours)}"))
        plt.plot(rows.iou, [place] * len(rows), linestyle="", markersize=6, **mark)
        print(f"{name:22}", *[f"{value:.3f}" for value in rows.iou])
    plt.yticks(range(len(groups)), [name for name, _ in groups])
    plt.gca().invert_yaxis()
    plt.xlim(limits)
    plt.xlabel("IoU")
    plt.show()
