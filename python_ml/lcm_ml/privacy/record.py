"""The record of what was forgotten: one JSON line each, chained by keyed hashes, so that a change shows."""

import hashlib
import hmac
import json
import os
from typing import Any

from lcm_ml.files import replace_private
from lcm_ml.privacy import keys
from lcm_ml.sources.pseudonyms import Pseudonyms

NAME = "record.jsonl"
START = "0" * 64


def entries() -> list[dict[str, Any]]:
    """The records as they stand in the file, oldest first; a line that is no JSON becomes {"broken": its text}."""
    path = keys.folder() / NAME
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        found.append(entry if isinstance(entry, dict) else {"broken": line})
    return found


def append(hashes: Pseudonyms, body: dict[str, Any]) -> dict[str, Any]:
    """Add a record; it is on the disk when this returns.

    Args:
        hashes: with the key.
        body: what happened, without any user's id, as JSON takes it.

    Returns:
        The record: `sequence`, the body, `previous` and `hash`.
    """
    path = keys.make_folder() / NAME
    before = entries()
    # A line that a crash cut short was never told as done: it goes.
    if before and "broken" in before[-1]:
        before.pop()
        replace_private(path, "".join(json.dumps(entry) + "\n" for entry in before))
    previous = before[-1]["hash"] if before else START
    entry = {"sequence": len(before) + 1, **body, "previous": previous}
    entry["hash"] = _hash(hashes, entry)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return entry


def problems(hashes: Pseudonyms, listed: dict[str, str | None]) -> list[str]:
    """What is wrong with the record.

    Args:
        hashes: with the key.
        listed: the warehouse's list: id_hash to the hash of the record that closed it, None while one is open.

    Returns:
        A sentence for each problem; empty where the chain is whole and agrees with the list.
    """
    found: list[str] = []
    previous, known = START, set()
    for number, entry in enumerate(entries(), 1):
        if "broken" in entry or "hash" not in entry:
            return [*found, f"line {number} of {NAME} is no record"]
        body = {name: value for name, value in entry.items() if name != "hash"}
        if not hmac.compare_digest(_hash(hashes, body), str(entry["hash"])):
            found.append(f"record {number} was changed, or made with another key")
        if entry.get("previous") != previous or entry.get("sequence") != number:
            found.append(f"before record {number} a record was removed, added or moved")
        previous = str(entry["hash"])
        known.add(previous)
    missing = sorted({closed for closed in listed.values() if closed and closed not in known})
    if missing:
        found.append(f"{len(missing)} records that the warehouse knows of are missing")
    return found


def _hash(hashes: Pseudonyms, body: dict[str, Any]) -> str:
    return hmac.digest(hashes.key, json.dumps(body, sort_keys=True).encode(), hashlib.sha256).hex()
