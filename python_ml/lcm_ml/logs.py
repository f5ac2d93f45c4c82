"""Structured logs: what a command does, as JSON lines, where LCM_LOG (or --log) asks for them.

Lines carry names, figures and times; no arguments, no settings and no rows, so that neither secrets nor users get in.
"""

import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lcm_ml.errors import LcmError, from_system

VARIABLE = "LCM_LOG"
STDERR = "-"


def stamp() -> str:
    """Unique, and sorts by time: what ids of runs begin with."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(2)}"


@dataclass
class _Call:
    """One call of lcm-ml."""

    command: str
    run_id: str
    started: float = field(default_factory=time.monotonic)


_call: _Call | None = None
_called = "lcm-ml"


def name_command(command: str) -> None:
    """Say what the calls to come are called in the log, e.g. lcm-ml fit."""
    global _called
    _called = command


def run_id() -> str | None:
    """The id of the call under way: on every line it logs. None outside the command line."""
    return _call.run_id if _call else None


@contextmanager
def call() -> Iterator[None]:
    """A call of lcm-ml, from its first line to its last: end, failed or stopped.

    Raises:
        LcmError: when the log cannot be written; as the block did, also for what the operating system refused.
    """
    global _call
    _call = _Call(_called, f"{stamp()}-{_called.removeprefix('lcm-ml ').replace(' ', '-')}")
    try:
        event("start")
        yield
        event("end", seconds=_seconds())
    except LcmError as error:
        _failed(error)
        raise
    except OSError as error:
        told = from_system(error)
        _failed(told)
        raise told from error
    except KeyboardInterrupt:
        event("stopped", "warning", seconds=_seconds())
        raise
    except Exception as error:
        # Its message may hold anything.
        event("failed", "error", error=type(error).__name__, seconds=_seconds())
        raise
    finally:
        _call = None


def _failed(error: LcmError) -> None:
    told = {"error": type(error).__name__}
    if not error.is_private:
        told |= {"message": error.message, "next_step": error.next_step}
    if error.run_id:
        told |= {"ml_run_id": error.run_id}
    event("failed", "error", **told, exit_code=error.exit_code, seconds=_seconds())


def _seconds() -> float | None:
    return round(time.monotonic() - _call.started, 3) if _call else None


def event(name: str, level: str = "info", **figures: object) -> None:
    """Log one line, when a log is asked for.

    Args:
        name: what happened: start, end, failed, step, lap, run, notice.
        level: info, warning or error.
        figures: more fields.

    Raises:
        LcmError: when the log cannot be written.
    """
    destination = os.environ.get(VARIABLE)
    if not destination:
        return
    line: dict[str, object] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level,
        "run_id": run_id(),
        "command": _call.command if _call else None,
        "event": name,
        **figures,
    }
    text = json.dumps(line, default=str) + "\n"
    if destination == STDERR:
        sys.stderr.write(text)
        return
    path = Path(destination)
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # One write a line: lines of several processes do not mix.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, text.encode())
        finally:
            os.close(handle)
    except OSError as error:
        # A job does not stop halfway for its log.
        if name == "start":
            raise LcmError(
                f"the log {path} cannot be written: {error.strerror}", f"name another file with --log or {VARIABLE}"
            ) from None
