"""What the README promises of the repository as a whole."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def readme_command(end: str) -> str:
    """Find the README's command that ends in these words."""
    commands = [line.strip() for line in README.splitlines() if line.startswith("    ")]
    return next(line for line in commands if line.endswith(end) and "&&" in line)


def test_ci_runs_the_readme_command() -> None:
    command = readme_command("pytest --nbval")
    assert command in (ROOT / ".ci/run").read_text().splitlines()


def test_both_commands_install_the_same_way() -> None:
    test = readme_command("pytest --nbval").rpartition(" && ")[0]
    read = readme_command("01_inspect_masks.ipynb").rpartition(" && ")[0]
    assert (
        test
        == read
        == ("python3 -m venv .venv && .venv/bin/pip install -r requirements.txt")
    )


def test_requirements_are_exact() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith(("#", "-e"))]
    loose = [line for line in packages if not re.fullmatch(r"[\w-]+==[\d.]+", line)]
    assert not loose
    assert "torch==2.13.0" not in packages


def test_every_notebook_is_in_the_readme() -> None:
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"(notebooks/{path.name})" in README


@pytest.mark.parametrize(
    "name",
    ["README.md", "CONTRIBUTING.md", "tools/README.md", "test_roads/LICENSE.md"],
)
def test_links_resolve(name: str) -> None:
    path = ROOT / name
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / target).exists(), f"{name}: no {target}"
