"""Faults planted on purpose: where they may stand, and which of them tests catch."""

from pathlib import Path

import pytest

from tools import mutate
from tools.faults import draw, find_faults

SOURCE = '''"""A made module: 1 < 2."""
# ----
# 1. Showing: what a module shows.
# ----
def scale(value: int | float) -> int:
    """Multiply by three, if not 1 > 2."""
    if value < LOW:  # 1 < 2
        raise ValueError(
            f"{value - 1}: expected more"
        )
    return value * 3
'''
TEST = "import ui_segmentation_system as ui\ndef test_scale(): assert ui.scale(2) == 6"


def test_faults_stand_in_code_alone() -> None:
    planted = [fault.plant(SOURCE) for fault in find_faults(SOURCE)]
    for source, _ in planted:
        compile(source, "made", "exec")
        assert source.count("\n") == SOURCE.count("\n")
    raised = 'raise ValueError( f"{value - 1}: expected more" )'
    assert sorted(row for _, row in planted) == [
        ["11", "arithmetic", "return value * 3", "return value / 3"],
        ["11", "constant", "return value * 3", "return value * 2"],
        ["11", "constant", "return value * 3", "return value * 4"],
        ["7", "comparison", "if value < LOW: # 1 < 2", "if value <= LOW: # 1 < 2"],
        ["8", "dropped line", raised, "pass"],
    ]


def test_every_section_has_test_files() -> None:
    sections = list(draw((mutate.ROOT / mutate.MODULE).read_text(), 120, 0))
    assert [number for number, *_ in sections] == list(range(13))
    assert sum(share for _, _, share, _ in sections) == 120
    for _, title, share, faults in sections:
        assert 5 <= share < len(faults)
        for name in mutate.find_tests(title):
            assert (mutate.ROOT / name).is_file()
    with pytest.raises(ValueError, match="section 'Colours': expected one of masks"):
        mutate.find_tests("Colours")


def test_what_is_caught_is_told_from_what_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, same, made = (tmp_path / name for name in ("table", "same", "made"))
    (made / "tests").mkdir(parents=True)
    (made / mutate.MODULE).write_text(SOURCE.replace("LOW", "0"))
    (made / "tests" / "test_scale.py").write_text(TEST)
    # Options of the project, as two processes, do not reach the runs.
    (made / "pytest.ini").write_text("[pytest]\naddopts = --no-such\n")
    monkeypatch.setattr(mutate, "ROOT", made)
    monkeypatch.setattr(mutate, "TESTS", {"showing": "scale"})
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    same.write_text("comparison\tif value < 0: # 1 < 2\tif value <= 0: # 1 < 2\twhy")
    mutate.main(["--count", "3", "--write", str(table), "--equivalent", str(same)])
    rows = [line.split("\t") for line in table.read_text().splitlines()[1:]]
    outcomes = {row[2]: row[5] for row in rows if row[2] != "constant"}
    assert outcomes == {"dropped line": "survived", "arithmetic": "caught"}
    files = ["tests/test_scale.py"]
    assert mutate.judge("import nothing_of_this_name", files, 60)[0] == "broken"
    assert mutate.judge("while True: pass", files, 3)[0] == "time-out"
