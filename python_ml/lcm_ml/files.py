"""Files that appear whole or not at all, for their owner alone, and that outlive a power cut."""

import os
from pathlib import Path


def replace_private(path: Path, text: str) -> Path:
    """Let a file with this text take the place of `path` in one step; it is on the disk then.

    Raises:
        OSError: when it cannot be written; `path` is as it was.
    """
    fresh = path.with_name(f".{path.name}.fresh")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return fresh.replace(path)


def sync_folder(folder: Path) -> None:
    """Have a folder's entries on the disk; what they name is there already."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
