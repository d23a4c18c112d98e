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
    experiment: str, limits: tuple[float, float] | None = None, by_kind: bool = False
) -> None:
    """Draw and print the IoU of each variant: a dot a seed, a line for what has none.

    A bar marks the median. limits: of the IoU axis, else as the dots need it. by_kind:
    variants are named "kind, group"; each kind has a colour, groups stand apart, and
    medians are printed in place of all seeds.
    """
    groups = list(read(experiment).groupby("variant", sort=False))
    width = max(22, *(len(name) for name, _ in groups))
    plt.figure(figsize=(6, 0.3 * len(groups) + 0.6))
    colours: dict[str, str] = {}
    places: dict[str, float] = {}
    for name, rows in groups:
        kind, _, group = name.partition(", ") if by_kind else (name, "", "")
        apart = bool(places) and not [*places][-1].endswith(group)
        place = places[name] = max(places.values(), default=-1) + 1 + 0.6 * apart
        mark = dict(marker="|", color="black")
        if len(rows) == 1 and ", " not in name:  # a baseline of all rows
            plt.axvline(rows.iou.item(), color="0.7", linestyle="--", zorder=0)
        elif len(rows) > 1:
            mark = dict(marker="o", color=colours.setdefault(kind, f"C{len(colours)}"))
            plt.plot(rows.iou.median(), place, "k|", markersize=12)
        plt.plot(rows.iou, [place] * len(rows), linestyle="", alpha=0.6, **mark)
        values = [rows.iou.median()] if by_kind else rows.iou
        print(f"{name:{width}}", *[f"{value:.3f}" for value in values])
    plt.yticks([*places.values()], [*places])
    plt.ylim(max(places.values()) + 0.6, -0.6)
    plt.xlim(limits)
    plt.xlabel("IoU")
    plt.show()
