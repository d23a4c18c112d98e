"""What the README promises of the repository as a whole."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_ci_and_both_commands_of_the_readme_install_the_same_way() -> None:
    lines = [line.strip() for line in README.splitlines() if line.startswith("    ")]
    endings = "pytest --nbval", "01_inspect_masks.ipynb"
    test, read = (
        next(line for line in lines if line.endswith(end) and "&&" in line)
        for end in endings
    )
    assert test in (ROOT / ".ci/run").read_text().splitlines()
    install = "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"
    assert {line.rpartition(" && ")[0] for line in (test, read)} == {install}


def test_requirements_are_exact() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith(("#", "-e"))]
    loose = [line for line in packages if not re.fullmatch(r"[\w-]+==[\d.]+", line)]
    assert not loose and "torch==2.13.0" not in packages


@pytest.mark.parametrize(
    "name",
    [
        *("README.md", "CONTRIBUTING.md", "tools/README.md"),
        *("test_roads/LICENSE.md", "checkpoints/README.md"),
    ],
)
def test_links_resolve(name: str) -> None:
    path = ROOT / name
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / target).exists(), f"{name}: no {target}"
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"(notebooks/{notebook.name})" in README
