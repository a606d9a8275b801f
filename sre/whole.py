"""Files that are written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a new file to fill, beside a path whose place it takes at the end.

    If filling it fails, nothing is left of it, and what was at the path stays.

    Raises: OSError: the folder is missing, full, or may not be written to

    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name) / "told.txt"
    >>> with replacing(path) as part:
    ...     path.exists(), part.write_text("all")
    (False, 3)
    >>> path.read_text(), len(list(path.parent.iterdir()))
    ('all', 1)
    >>> folder.cleanup()
    """
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    try:
        yield Path(name)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
