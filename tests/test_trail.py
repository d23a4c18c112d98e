"""The trail of a name: what is counted in it, and what is used once."""

from pathlib import Path

import pytest

from tools.trail import main

SOURCE = """LEAST: int = 2
def cached(function):
    return function
@cached
def _twice(number):
    return number * LEAST
class Area:
    def _side(self):
        return _twice(1)
    def _both(self):
        return self._side(), self._side(), self._once()
    def _once(self):
        return Area
    def __len__(self):
        return _twice(_twice(self._both()))
"""


def test_trail_counts_what_is_referred_to(tmp_path: Path, capsys) -> None:
    file = tmp_path / "made.py"
    file.write_text(SOURCE)

    def lines(*names: str) -> list[str]:
        assert main([str(file), *names]) == 0
        return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]

    assert lines() == [
        "Area 3 definitions 15 lines",
        "cached 1 definitions 2 lines",
        "15 lines, 2 public names",
        "1 of 1 private names used once: _twice",
        "2 of 3 private methods used once: _both, _once",
    ]
    assert lines("_twice")[0] == "_twice 2 definitions 6 lines"
    with pytest.raises(SystemExit, match="2"):
        main([str(file), "Circle"])
    assert capsys.readouterr().err.endswith("no Circle at the top of the file\n")
