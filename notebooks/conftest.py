"""Make `pytest --nbval` compare by comparison.py: numbers within the tolerance that a
cell's tags state, figures by what they show, everything else exactly.
"""

import multiprocessing
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from comparison import compare_cells
from nbformat import NotebookNode
from nbval.plugin import IPyNbCell, transform_streams_for_comparison

TEST_OUTPUTS = Path(__file__).parents[1] / "test_outputs"
CAN_FORK = "fork" in multiprocessing.get_all_start_methods()  # not on Windows
collect_ignore = [] if CAN_FORK else ["08_inside_the_dataloader.ipynb"]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Put our comparison in the place of nbval's."""
    if isinstance(item, IPyNbCell):
        item.compare_outputs = partial(_outputs_agree, item)


def _outputs_agree(
    item: IPyNbCell, new: Sequence[NotebookNode], stored: Sequence[NotebookNode]
) -> bool:
    lesson = f"lesson_{item.path.name[:2]}"
    item.comparison_traceback = compare_cells(
        transform_streams_for_comparison(stored),
        transform_streams_for_comparison(new),
        item.cell.metadata.get("tags", []),
        written=TEST_OUTPUTS / lesson,
        kept=TEST_OUTPUTS,
    )
    return not item.comparison_traceback
