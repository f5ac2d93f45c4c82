"""A snapshot's manifest: what the snapshot holds, and whether its files are still what was written."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from lcm_ml.errors import LcmError

NAME = "manifest.json"
WHOLE, PART = "whole", "part"
"""Kinds of snapshots: all relations were written, or only those that `lcm-ml watch` had changed."""


def digest(path: Path) -> str:
    """SHA-256 of a file, which is on the disk, not in a cache alone, when this returns.

    Raises:
        OSError: when it cannot be read.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return found


def write(folder: Path, manifest: dict[str, Any], name: str = NAME) -> None:
    """Write the manifest of the snapshot in `folder`, under another name until it is to count.

    Raises:
        OSError: when it cannot be written.
    """
    path = folder / name
    path.write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    digest(path)


def read(folder: Path) -> dict[str, Any]:
    """The manifest of the snapshot in `folder`.

    Raises:
        LcmError: when it is missing, cannot be read, or belongs to another snapshot.
    """
    path = folder / NAME
    mend = "publish again with `lcm-ml publish`"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        named, relations = manifest["snapshot_id"], manifest["relations"]
        if not all(relation["sha256"] and relation["columns"] for relation in relations.values()):
            raise ValueError
    except FileNotFoundError:
        raise LcmError(f"{path} is missing", mend) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LcmError(f"{path} is not a manifest", mend) from None
    if named != folder.resolve().name:
        raise LcmError(f"{path} is the manifest of the snapshot {named}", mend)
    return manifest


def check(folder: Path) -> dict[str, Any]:
    """Read a snapshot's manifest, and every file's checksum.

    Returns:
        The manifest.

    Raises:
        LcmError: naming the file that is missing, or is not what was published.
    """
    manifest = read(folder)
    for name, relation in manifest["relations"].items():
        path = folder / f"{name}.parquet"
        mend = "`lcm-ml snapshots list` shows the others; `lcm-ml publish` makes a new one"
        try:
            found = digest(path)
        except FileNotFoundError:
            raise LcmError(f"{path} is missing", mend) from None
        if found != relation["sha256"]:
            raise LcmError(f"{path} is not the file that was published: its checksum differs", mend)
    return manifest
