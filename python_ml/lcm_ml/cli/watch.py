"""`lcm-ml watch`: new files to scores in the published snapshot, within seconds."""

import json
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcm_ml.cli.console import JsonOption, command, err, notify, out
from lcm_ml.cli.load import (
    DropIdenticalOption,
    MapOption,
    PseudonymiseOption,
    SetOption,
    TimezoneOption,
    file_options,
)

if TYPE_CHECKING:
    from lcm_ml.live.cycle import Cycle

UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
LONGEST_PAUSE = 60.0
"""Seconds between two tries, when one cycle after another fails."""


def watch(
    inbox: Annotated[Path, typer.Option(help="Folder that files arrive in, by a rename.")],
    every: Annotated[str, typer.Option(help="Time between the starts of two cycles, e.g. 5s or 2m.")] = "5s",
    once: Annotated[bool, typer.Option("--once", help="Take what is there, then end.")] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove loaded files, rather than keep them in done/.")
    ] = False,
    maps: MapOption = None,
    constants: SetOption = None,
    timezone: TimezoneOption = None,
    drop_identical: DropIdenticalOption = False,
    pseudonymise: PseudonymiseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Load files as they arrive, score again the users they touch, and publish: a cycle every few seconds.

    A file's name says its table (users-1.csv); any other name is of events. Loaded files go to done/, those that cannot
    be loaded to failed/ with the reason beside them. SIGTERM and Ctrl-C end it after the step under way. With --json,
    a line for each cycle.

    Example: `lcm-ml watch --inbox /data/inbox --every 5s`
    """
    with command(as_json):
        from lcm_ml.live.inbox import Inbox

        options = file_options(maps, constants, timezone, drop_identical, pseudonymise, append=True)
        period = seconds_of(every)
        box = Inbox(inbox, delete)
        with box.held(), stopping() as stop, status_line(as_json) as tell:
            run_watch(box, options, period, stop, tell, once=once)


def seconds_of(text: str) -> float:
    """The seconds of a time like 5s, 500ms, 2m or 10.

    Raises:
        UsageError: for a text of another form, and for none at all.
    """
    from lcm_ml.errors import UsageError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|)", text.strip())
    seconds = float(found[1]) * UNITS[found[2]] if found else 0.0
    if seconds <= 0:
        raise UsageError(f"--every {text!r} is no time", "e.g. --every 5s")
    return seconds


@dataclass
class Told:
    """What the status line says of all cycles so far."""

    state: str = "starting"
    cycles: int = 0
    files: int = 0
    events: int = 0
    users: int = 0
    failed: int = 0
    backlog: int = 0
    latency: float | None = None
    as_of_ts: datetime | None = None
    error: str = ""
    errors_in_a_row: int = 0

    def add(self, cycle: "Cycle") -> None:
        """Count a cycle in."""
        self.cycles += 1
        self.files += cycle.files
        self.events += cycle.events
        self.users += cycle.users
        self.failed += len(cycle.failed)
        self.backlog = cycle.backlog
        self.latency = cycle.latency_seconds if cycle.latency_seconds is not None else self.latency
        self.as_of_ts = cycle.as_of_ts or self.as_of_ts
        if cycle.failed:
            name, reason = next(iter(cycle.failed.items()))
            self.error = f"{name}: {reason}"

    @property
    def line(self) -> str:
        """For people."""
        parts = [
            self.state,
            f"{self.files:,} files",
            f"{self.events:,} events",
            f"{self.users:,} users touched",
            f"latency {self.latency:.1f} s" if self.latency is not None else "latency -",
            f"backlog {self.backlog:,}",
        ]
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        if self.as_of_ts:
            parts.append(f"up to {self.as_of_ts:%Y-%m-%d %H:%M:%S}")
        if self.error:
            parts.append(f"last error: {self.error}")
        return " · ".join(parts)


Tell = Callable[[Told, Any], None]


def run_watch(box: Any, options: Any, period: float, stop: threading.Event, tell: Tell, *, once: bool) -> None:
    """Run cycles until told to stop; with `once` until nothing is left to do.

    Raises:
        LcmError: when there is nothing to go on from, see `why_not_ready`; with `once`, what a cycle raised.
    """
    from lcm_ml.errors import LcmError, LockedError
    from lcm_ml.live.cycle import StoppedError, Watch

    told = Told()
    tell(told, None)
    _get_ready(stop)
    watching = Watch(box, options, lambda _: None, stop.is_set)
    while not stop.is_set():
        began = time.monotonic()
        told.state = "working"
        tell(told, None)
        try:
            cycle = watching.cycle()
        except StoppedError:
            break
        except LcmError as error:
            if once:
                raise
            told.errors_in_a_row += 1
            told.error = error.message.splitlines()[0]
            waits = isinstance(error, LockedError)
            told.state = "waiting for another job" if waits else "failed, trying again"
            tell(told, error)
            pause = period if waits else min(period * 2 ** min(told.errors_in_a_row, 10), LONGEST_PAUSE)
            stop.wait(pause)
            continue
        if told.errors_in_a_row:
            told.errors_in_a_row, told.error = 0, ""
        told.state = "waiting for files"
        if cycle:
            told.add(cycle)
        tell(told, cycle)
        if once:
            if cycle is None or not box.arrived():
                break
            continue
        stop.wait(max(0.0, period - (time.monotonic() - began)))


def _get_ready(stop: threading.Event) -> None:
    """Build and score first, where the warehouse is not in a state to go on from."""
    from lcm_ml.cli.score import run_score
    from lcm_ml.live.cycle import NAME, why_not_ready
    from lcm_ml.warehouse.build import build
    from lcm_ml.warehouse.connection import connect, writer_lock

    with writer_lock(NAME, notify):
        with connect(read_only=True, notify=notify) as con:
            reason = why_not_ready(con)
        if reason and not stop.is_set():
            notify(f"{reason}: building and scoring everything first")
            build(lambda *_: None, notify)
            run_score(None, None, lambda *_: None)


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, rather than break off what is under way."""
    stop = threading.Event()

    def told(*_: object) -> None:
        stop.set()

    before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def status_line(as_json: bool) -> Iterator[Tell]:
    """A line that changes in place where stderr is a terminal; else a line for each cycle and error."""
    from rich.live import Live
    from rich.text import Text

    from lcm_ml.errors import LcmError

    shows_live = err.is_terminal and not as_json
    with Live(Text(""), console=err, transient=True, auto_refresh=False) if shows_live else nullcontext() as live:

        def tell(told: Told, what: Any) -> None:
            if live is not None:
                live.update(Text(told.line, overflow="ellipsis", no_wrap=True), refresh=True)
            if what is None:
                return
            if as_json:
                document = (
                    {"error": what.message, "next_step": what.next_step} if isinstance(what, LcmError) else vars(what)
                )
                sys.stdout.write(json.dumps(document, default=str) + "\n")
                sys.stdout.flush()
            elif isinstance(what, LcmError):
                err.print(f"error: {what.message}", style="bold red")
            elif live is None:
                out.print(_line_of(what))

        yield tell


def _line_of(cycle: "Cycle") -> str:
    latency = f", {cycle.latency_seconds:.1f} s after the oldest file" if cycle.latency_seconds is not None else ""
    failed = f", {len(cycle.failed)} files failed" if cycle.failed else ""
    return (
        f"cycle {cycle.number}: {cycle.files:,} files, {cycle.events:,} events, {cycle.users:,} users, "
        f"{cycle.scored:,} scored{failed}; published {cycle.snapshot_id or 'nothing new'}{latency}"
    )
