"""Failures that no table tells of (of load, run, publish, backup ...), in a small file beside the warehouse.

Runs that write ml tables leave theirs in ml.model_runs, and builds in meta.builds. This file holds what happens where
there is no warehouse to write to: it is locked, its disk is full, or the job never got that far.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lcm_ml import project
from lcm_ml.errors import LcmError, UsageError, from_system
from lcm_ml.files import replace_private
from lcm_ml.logs import run_id

RESOLVED_BY = {"lcm-ml run": ("lcm-ml run", "lcm-ml publish")}
"""Whose failures a success settles, where these are more than its own."""


@contextmanager
def kept(command: str) -> Iterator[None]:
    """Remember it when the block fails, and forget it when a later block of the same command succeeds.

    Raises:
        LcmError: as the block did, also for what the operating system refused.
    """
    try:
        yield
    except UsageError:
        raise
    except LcmError as error:
        _note(command, error)
        raise
    except OSError as error:
        told = from_system(error)
        _note(command, told)
        raise told from error
    else:
        if found := read():
            settled = RESOLVED_BY.get(command, (command,))
            if left := [failure for failure in found if failure["command"] not in settled]:
                _write(left)
            else:
                with suppress(OSError):
                    _path().unlink(missing_ok=True)


def _note(command: str, error: LcmError) -> None:
    if error.is_recorded:
        return
    error.is_recorded = True
    failure = {
        "command": command,
        "started_at": f"{datetime.now(UTC):%FT%TZ}",
        "run_id": run_id(),
        "message": error.message,
        "next_step": error.next_step,
    }
    _write([*(entry for entry in read() if entry["command"] != command), failure])


def read() -> list[dict[str, Any]]:
    """The open failures, oldest first: command, started_at, run_id, message and next_step."""
    try:
        found: list[dict[str, Any]] = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return found


def _path() -> Path:
    path = project.warehouse_path()
    return path.with_name(f"{path.stem}.failures.json")


def _write(found: list[dict[str, Any]]) -> None:
    # The failure itself is what the user must hear of; that it could not be kept adds nothing.
    with suppress(OSError):
        replace_private(_path(), json.dumps(found, indent=2))
