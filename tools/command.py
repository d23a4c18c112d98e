"""What the commands share: errors in one line, and folders that are whole or absent."""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def run(
    parser: argparse.ArgumentParser,
    function: Callable[..., int | None],
    argv: Sequence[str] | None,
) -> int:
    """Call a function with the options of a command line; returns its exit status.

    A ValueError or OSError ends the program with one line and status 2.
    """
    try:
        return function(**vars(parser.parse_args(argv))) or 0
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill; when the block ends without error it is moved to `path`.

    Else nothing is left of it. Raises FileExistsError if `path` is there and not an
    empty folder.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        kind = "a folder that is not empty" if path.is_dir() else "a file"
        raise FileExistsError(f"{path}: is {kind}; name a new or an empty folder")
    path = path.resolve()  # a link to an empty folder stays a link
    above = next(folder for folder in path.parents if folder.exists())
    with tempfile.TemporaryDirectory(dir=above, prefix=".unfinished_") as scratch:
        # A folder inside, since the temporary one is closed to other users.
        part = Path(scratch, path.name)
        part.mkdir()
        yield part
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():  # Windows moves nothing onto a folder, even an empty one
            path.rmdir()
        part.rename(path)
