"""What the commands share: errors in one line, and folders that are whole or absent."""

import argparse
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Command(argparse.ArgumentParser):
    """The command line of a function, `python -m tools.FILE`, told by its module."""

    def __init__(self, function: Callable) -> None:
        name = Path(function.__code__.co_filename).stem
        doc = function.__globals__["__doc__"]
        super().__init__(f"python -m tools.{name}", description=doc)
        self.formatter_class = argparse.RawDescriptionHelpFormatter
        self.function = function

    def add(self, name: str, kind: type, text: str, default=None, **more: Any) -> None:
        """Add an argument of a type, with its help, which tells the default."""
        text = text if default in (None, "", []) else f"{text} ({default})"
        self.add_argument(name, type=kind, help=text, default=default, **more)

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Call the function with the options; returns the exit status that it gives.

        A ValueError or OSError ends the program with one line and status 2.
        """
        try:
            return self.function(**vars(self.parse_args(argv))) or 0
        except (ValueError, OSError) as error:
            self.exit(2, f"{self.prog}: {error}\n")


def check_range(name: str, value: float, least: float, most=math.inf) -> None:
    """Raise ValueError for a number below the least or above the most."""
    if not least <= value <= most:
        expected = f"{least} or more" if most == math.inf else f"{least} to {most}"
        raise ValueError(f"{name} {value}: expected {expected}")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill; when the block ends without error it is moved to `path`.

    Else nothing is left of it. Raises FileExistsError if `path` is there.
    """
    if path.exists():
        raise FileExistsError(f"{path}: expected a folder that is not there yet")
    above = next(folder for folder in path.resolve().parents if folder.exists())
    with tempfile.TemporaryDirectory(dir=above, prefix=".unfinished_") as scratch:
        # A folder inside, since the temporary one is closed to other users.
        part = Path(scratch, path.name)
        part.mkdir()
        yield part
        path.parent.mkdir(parents=True, exist_ok=True)
        part.rename(path)
