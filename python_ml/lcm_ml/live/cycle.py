"""One cycle of `lcm-ml watch`: load what arrived, compute and score whom it touches, publish, move the files away.

Each step is a transaction of its own, and what has to be done is read from the warehouse, never remembered: a file is
known by its content, in the load's own transaction; a load is pending until the models hold it; a user is pending until
the newest state of it is scored; a publish until the snapshot is of that state. So a cycle that was killed at any
moment is finished by the next one.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import duckdb
import polars as pl

from lcm_ml import logs, project
from lcm_ml.churn.current import FullScoring, current_rows, full_scoring, last_full_scoring, pending_users
from lcm_ml.errors import LcmError
from lcm_ml.live.alerts import current_alerts
from lcm_ml.live.inbox import MOST_FILES, Arrived, Inbox
from lcm_ml.publishing import snapshot
from lcm_ml.publishing.catalogue import current_manifest, publishing_lock
from lcm_ml.registry.runs import Run, utc_now
from lcm_ml.sources.files import FileOptions, load_each
from lcm_ml.warehouse import state, writer
from lcm_ml.warehouse.connection import LOCK_TIMEOUT, connect, first_row, rows, table_exists, transaction, writer_lock
from lcm_ml.warehouse.contracts import tables
from lcm_ml.warehouse.partial_build import PartialBuild

NAME = "lcm-ml watch"
Notify = Callable[[str], None]
MODELS = "tag:current"
"""The models that a cycle builds, as dbt selects them: events by load, and the current state."""

STAGING = {"users": "stg_users", "campaign_touches": "stg_campaign_touches", "support_tickets": "stg_support_tickets"}
"""Tables besides events whose rows touch one user each, and the model that a cycle builds of them."""

LOCK_SECONDS = 2.0
"""A cycle waits no longer for another job: the next one comes in a few seconds."""


class StoppedError(Exception):
    """The watch was told to stop, between two steps of a cycle."""


@dataclass
class Cycle:
    """What a cycle did. `seconds` has those of each step.

    Attributes:
        number: of the cycle, from 1.
        files: loaded, or loaded before and only moved.
        failed: file name to what is wrong with it.
        events: rows that the load added to raw.events.
        rows: rows that it added to all tables.
        rejected: rows that could not be read.
        users: whose current state was computed.
        scored: users with a new score.
        latency_seconds: from the writing of the oldest file to the moment readers see its scores.
        backlog: files that arrived meanwhile, or have to wait for the next cycle.
        for_next_build: tables whose new rows only a whole build takes up.
        as_of_ts: the newest event, UTC.
        snapshot_id: what was published; None where nothing had changed.
        seconds: of each step.
    """

    number: int
    files: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    events: int = 0
    rows: int = 0
    rejected: int = 0
    users: int = 0
    scored: int = 0
    latency_seconds: float | None = None
    backlog: int = 0
    for_next_build: list[str] = field(default_factory=list)
    as_of_ts: datetime | None = None
    snapshot_id: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - began, 3)


class Watch:
    """The state of a watch between its cycles: nothing that a new one would not read from the warehouse.

    Args:
        inbox: held by the caller.
        options: how files become raw rows.
        notify: told when another process has to be waited for.
        is_stopped: asked between two steps.
    """

    def __init__(self, inbox: Inbox, options: FileOptions, notify: Notify, is_stopped: Callable[[], bool]) -> None:
        self._inbox, self._options, self._notify, self._is_stopped = inbox, options, notify, is_stopped
        self._run = Run("watch", {"cycles": 0, "files": 0, "events": 0, "scored": 0}, None)
        self._full: FullScoring | None = None
        self._unfinished = True
        self._number = 0
        self._build = PartialBuild(project.beside_warehouse("watch"), "watch")

    def cycle(self) -> Cycle | None:
        """Run one cycle.

        Returns:
            What it did; None where there was nothing to do.

        Raises:
            LcmError: when a step failed; what the steps before it wrote stays, and the next cycle goes on from there.
            StoppedError: when the watch was told to stop meanwhile; the same holds.
        """
        arrived = self._inbox.arrived()
        files, waiting = arrived[:MOST_FILES], len(arrived) - MOST_FILES
        if not files and not self._unfinished:
            return None
        done = Cycle(self._number + 1)
        with _impatient(), writer_lock(NAME, self._notify), connect(notify=self._notify) as con:
            self._number += 1
            self._unfinished = True
            taken = self._load(files, done) if files else []
            self._go_on()
            is_new = self._compute(con, done)
            self._go_on()
            self._score(con, done, is_new)
            self._go_on()
            self._publish(con, done)
        if done.snapshot_id and taken:
            done.latency_seconds = round(time.time() - min(file.arrived_at for file in taken), 3)
        with done.step("move"):
            self._inbox.take_away(taken)
        self._unfinished = False
        done.backlog = max(waiting, 0) or len(self._inbox.arrived())
        logs.event("cycle", **{name: value for name, value in vars(done).items() if name != "failed"})
        if not done.snapshot_id and not files:
            return None
        return done

    def _go_on(self) -> None:
        if self._is_stopped():
            raise StoppedError

    def _load(self, files: list[Arrived], done: Cycle) -> list[Arrived]:
        """Load in one transaction; put aside what cannot be. Returns the files that raw holds now."""
        with done.step("load"):
            loaded, refused = load_each([(file.table, file.path) for file in files], self._options, self._notify)
            known = {entry["source_file"]: entry for entry in loaded["files"]}
            for file in files:
                if file.path in refused:
                    done.failed[file.path.name] = refused[file.path].message
                    self._inbox.put_aside(file, refused[file.path])
            taken = [file for file in files if str(file.path) in known or str(file.path) in loaded["skipped"]]
        done.files, done.rows, done.rejected = len(taken), loaded["rows_loaded"], loaded["rows_rejected"]
        done.events = sum(entry["rows_loaded"] for entry in known.values() if entry["table_name"] == "events")
        return taken

    def _compute(self, con: duckdb.DuckDBPyConnection, done: Cycle) -> bool:
        """Build the models of what is pending. Whether anything was."""
        with done.step("build"):
            pending = _pending_tables(con)
            build = state.last_build(con)
            if pending is None and build and build["status"] == "ok":
                return False
            # A build that was killed at its very end is run again, so that it is known to be whole.
            pending = pending or set()
            done.for_next_build = sorted(pending - {"events", *STAGING})
            # A table that nothing was loaded into makes no model to build.
            self._build.run(MODELS, *(STAGING[name] for name in sorted(pending & STAGING.keys())))
            newest = first_row(con, "select max(load_id) from marts.current_user_lifecycle")
            counts = first_row(
                con,
                "select count(*), max(as_of_ts) from marts.current_user_lifecycle where load_id = ?",
                [newest[0] if newest else None],
            )
            if counts:
                done.users, done.as_of_ts = counts
        return True

    def _score(self, con: duckdb.DuckDBPyConnection, done: Cycle, is_new: bool) -> None:
        """Score whom something new is known of, and raise the alerts that follow from what was loaded."""
        with done.step("score"):
            settings = state.settings(con)
            full = self._full_scoring(con, settings)
            users = pending_users(con, full.version)
            now = utc_now()
            found = current_rows(con, full, users, self._run.run_id, now) if users else {}
            if not found and not is_new and not done.failed:
                return
            alerts = current_alerts(con, self._inbox, settings)
            done.scored = found["current_churn_scores"].height if found else 0
            for name, count in (("cycles", 1), ("files", done.files), ("events", done.events), ("scored", done.scored)):
                self._run.parameters[name] += count
            contracts = tables("ml")
            with transaction(con):
                con.execute("delete from ml.alerts where run_id = ?", [self._run.run_id])
                raised = [alert.row(self._run.run_id, full.version, now) for alert in alerts]
                if raised:
                    writer.write(con, contracts["alerts"], pl.DataFrame(raised))
                for name, frame in found.items():
                    writer.write(con, contracts[name], frame)
                writer.write(con, contracts["model_runs"], self._run.row("ok"))

    def _full_scoring(self, con: duckdb.DuckDBPyConnection, settings: dict[str, Any]) -> FullScoring:
        newest = last_full_scoring(con)
        if self._full is None or newest != (self._full.as_of_date, self._full.run_id, self._full.version):
            self._full = full_scoring(con, settings)
        return self._full

    def _publish(self, con: duckdb.DuckDBPyConnection, done: Cycle) -> None:
        """Publish when readers see another state: only what a cycle changes, where nothing else has changed."""
        with done.step("publish"), publishing_lock(NAME, self._notify) as folder:
            if (current_manifest() or {}).get("warehouse_state") == snapshot.state_of(con):
                return
            changed = snapshot.LIVE if snapshot.may_take_over(con, folder) else None
            written = snapshot.publish(con, folder, None, lambda *_: None, changed)
            done.snapshot_id = written["snapshot_id"]


def why_not_ready(con: duckdb.DuckDBPyConnection) -> str | None:
    """Why a build and a full scoring have to come first, in words; None where a watch can go on from here.

    Raises:
        LcmError: when there is nothing to go on from: nothing built, no model, or a fixed end of the data.
    """
    build = state.last_build(con)
    if build is None or not table_exists(con, "marts", "user_features"):
        raise LcmError("nothing was built yet in this warehouse", "load the history, then `lcm-ml run`")
    settings = state.settings(con)
    if settings["data_end_date"]:
        raise LcmError(
            f"the var data_end_date fixes the end of the data at {settings['data_end_date']}: nothing after it counts",
            "set it to null, then `lcm-ml run`",
        )
    if not table_exists(con, "marts", "current_user_lifecycle"):
        return "the tables of the current state are not there yet"
    if build["status"] != "ok" and build["command"] != "watch":
        return f"the dbt build of {build['started_at']:%Y-%m-%d %H:%M} UTC did not end well"
    gone = first_row(
        con,
        "select 1 from meta.processed_loads where model_name = 'stg_events_checked' "
        "and load_id not in (select load_id from raw.loads) and exists (select 1 from raw.loads) limit 1",
    )
    if gone:
        return "the loads that the tables were made of were replaced"
    if first_row(con, "select 1 from ml.model_versions where status = 'champion'") is None:
        raise LcmError("there is no champion to score with", "lcm-ml run")
    scored = last_full_scoring(con)
    if scored is None:
        return "the end of the data was not scored yet"
    newer = rows(
        con,
        """
        select builds.started_at
        from meta.builds as builds
        where
            builds.command != 'watch'
            and builds.finished_at > (select max(started_at) from ml.model_runs where run_id = ?)
        limit 1
        """,
        [scored[1]],
    )
    return "tables were built since the last full scoring" if newer else None


def _pending_tables(con: duckdb.DuckDBPyConnection) -> set[str] | None:
    """The raw tables of the loads that the current state does not hold; None where it holds all."""
    found = con.execute(
        """
        select distinct files.table_name
        from raw.loads as loads
        left join raw.load_files as files on loads.load_id = files.load_id
        where loads.load_id not in (
            select load_id from meta.processed_loads where model_name = 'current_user_lifecycle'
            intersect
            select load_id from meta.processed_loads where model_name = 'current_user_features'
        )
        """
    ).fetchall()
    return {name for (name,) in found if name} if found else None


def _impatient() -> AbstractContextManager[None]:
    """Wait for locks no longer than a cycle is worth."""
    usual = float(os.environ.get(LOCK_TIMEOUT) or LOCK_SECONDS)
    return project.environment({LOCK_TIMEOUT: str(min(usual, LOCK_SECONDS))})
