"""Write a folder whole or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
