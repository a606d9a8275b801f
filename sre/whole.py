"""Files that are written whole or not at all, and leave when there are too many."""

import contextlib
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


def make_room(folder: Path, suffix: str, most_bytes: int) -> None:
    """Let the files of a kind that were used longest ago leave a folder, until they fit.

    Raises: OSError: one cannot be removed

    >>> folder = tempfile.TemporaryDirectory()
    >>> for second, name in enumerate(["old", "new"]):
    ...     path = Path(folder.name) / f"{name}.txt"
    ...     _ = path.write_text("four")
    ...     os.utime(path, (second, second))
    >>> make_room(Path(folder.name), ".txt", 7)
    >>> [path.name for path in Path(folder.name).iterdir()]
    ['new.txt']
    >>> folder.cleanup()
    """
    files = []
    # Parts that a crash left behind are old, and leave first.
    for path in (*folder.glob(f"*{suffix}"), *folder.glob("*.part")):
        with contextlib.suppress(OSError):  # another process may make room as well
            found = path.stat()
            files.append((found.st_mtime_ns, found.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= most_bytes:
            return
        path.unlink(missing_ok=True)
        total -= size
