"""The secret of this warehouse's privacy folder, and the keyed hashes that stand for forgotten users."""

import os
import secrets
from pathlib import Path

from lcm_ml import project
from lcm_ml.errors import LcmError
from lcm_ml.sources.pseudonyms import SHORTEST_KEY, Pseudonyms, id_case_setting

KEY_VARIABLE = "LCM_FORGET_KEY"


def folder() -> Path:
    """Where the key, the record and an unfinished job lie: beside the warehouse, for its owner alone."""
    return project.beside_warehouse("privacy")


def make_folder() -> Path:
    """The same, made where it is missing."""
    path = folder()
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def keyed_hash(*, create: bool = False) -> Pseudonyms:
    """What turns an id into its hash: the key is LCM_FORGET_KEY, else the file `key` in the privacy folder.

    Args:
        create: make that file where there is no key yet.

    Raises:
        LcmError: when there is no key, or it is too short.
    """
    path = folder() / "key"
    text = os.environ.get(KEY_VARIABLE, "").strip()
    if not text and path.is_file():
        text = path.read_text(encoding="ascii").strip()
    if not text and create:
        text = secrets.token_hex(32)
        make_folder()
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
    mend = f"put the key back at {path}, or set {KEY_VARIABLE} to it"
    if not text:
        raise LcmError("users were forgotten here, and the key of their hashes is gone", mend)
    if len(text) < SHORTEST_KEY:
        raise LcmError(f"the key of forgotten users is shorter than {SHORTEST_KEY} characters", mend)
    return Pseudonyms(text.encode(), id_case_setting(), "lcm_forget")
