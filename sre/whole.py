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


def make_room(folder: Path, pattern: str, most_bytes: int) -> None:
    """Let the files of a kind that were used longest ago leave a folder, until they fit.

    Args: pattern: of their names, as `Path.glob` takes it; no other file is touched, but the parts
        that `replacing` left behind when the machine stopped

    >>> folder = tempfile.TemporaryDirectory()
    >>> for second, name in enumerate(["old.txt", "new.txt", "other"]):
    ...     path = Path(folder.name) / name
    ...     _ = path.write_text("four")
    ...     os.utime(path, (second, second))
    >>> make_room(Path(folder.name), "*.txt", 7)
    >>> sorted(path.name for path in Path(folder.name).iterdir())
    ['new.txt', 'other']
    >>> folder.cleanup()
    """
    files = []
    for path in (*folder.glob(pattern), *folder.glob("tmp*.part")):
        with contextlib.suppress(OSError):  # another process may make room as well
            found = path.stat()
            files.append((found.st_mtime_ns, found.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= most_bytes:
            return
        with contextlib.suppress(OSError):  # of what cannot be removed, the next one leaves
            path.unlink(missing_ok=True)
            total -= size
