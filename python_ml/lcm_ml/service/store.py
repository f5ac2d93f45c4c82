"""A published snapshot as the service holds it: checked, sorted by user, mapped into memory, never changed."""

import bisect
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa

from lcm_ml.errors import LcmError
from lcm_ml.frames.frame import read
from lcm_ml.insights.profile import LISTS
from lcm_ml.publishing import manifest
from lcm_ml.support.answers import Facts
from lcm_ml.support.assistant import Assistant, build_assistant
from lcm_ml.warehouse.connection import first_row

SCORES, PROFILES, FACTS = "churn_scores_latest", "user_profiles", "support_facts_latest"
NEXT_ACTIONS, ARTICLES = "next_best_actions_latest", "kb_articles"
PROFILE_LISTS = {name: (relation.split(".")[1], order) for name, relation, order in LISTS}
"""Lists of a profile: name to relation and the column that orders it."""
NEEDED = {SCORES: "user_id", PROFILES: "user_id", **dict(PROFILE_LISTS.values())}
OPTIONAL = {FACTS: "user_id", NEXT_ACTIONS: "user_id"}
"""Relations that snapshots of an earlier version lack."""
ROWS_A_BATCH = 65_536
SORTING_MEMORY = "1GB"
"""What sorting may take while a snapshot is loaded; what is beyond goes to disk."""

NO_ARTICLES = pl.DataFrame(schema=dict.fromkeys(("article_id", "intent", "title", "body"), pl.String))
_NOTHING_LABELLED = pl.DataFrame(schema=dict.fromkeys(("plain", "language", "intent"), pl.String))


class NoSnapshotError(LcmError):
    """There is no snapshot that may be served: none was published, or it is not what its manifest says."""


class UserRows:
    """The rows of a relation, found by user_id in a sorted column.

    The table lies in a mapped file without a name: the system reads what is asked for, and forgets it when memory is
    short.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._ids = table.column("user_id")

    def of(self, user_id: str) -> list[dict[str, Any]]:
        """The user's rows, in the relation's order; none for an unknown user."""
        start = bisect.bisect_left(range(len(self._ids)), user_id, key=self._id)
        end = start
        while end < len(self._ids) and self._id(end) == user_id:
            end += 1
        return self._rows(start, end)

    def starting_with(self, prefix: str, most: int) -> list[dict[str, Any]]:
        """The first `most` rows whose user_id starts with `prefix`, in the order of user_id."""
        start = end = bisect.bisect_left(range(len(self._ids)), prefix, key=self._id)
        while end < min(start + most, len(self._ids)) and self._id(end).startswith(prefix):
            end += 1
        return self._rows(start, end)

    def _id(self, place: int) -> str:
        return str(self._ids[place].as_py())

    def _rows(self, start: int, end: int) -> list[dict[str, Any]]:
        if start == end:
            return []
        found: list[dict[str, Any]] = self._table.slice(start, end - start).to_pylist()
        for row in found:
            for name, value in row.items():
                if value != value:  # JSON has no word for NaN
                    row[name] = None
        return found


@dataclass(frozen=True)
class Snapshot:
    """One snapshot, whole: whoever holds it sees nothing of another one.

    Attributes:
        as_of_date: of the profiles; None where there is no user.
        users: relation to its rows by user.
        articles: the knowledge base that `assistant` was built from.
    """

    snapshot_id: str
    created_at: datetime
    as_of_date: date | None
    users: Mapping[str, UserRows]
    articles: pl.DataFrame
    assistant: Assistant

    def profile(self, user_id: str) -> dict[str, Any] | None:
        """A user as `insights.profile.card` takes it, or None where there is no such user."""
        found = self.users[PROFILES].of(user_id)
        if not found:
            return None
        lists = {name: self.users[relation].of(user_id) for name, (relation, _) in PROFILE_LISTS.items()}
        return {"profile": found[0], **lists}

    def facts(self, user_id: str) -> Facts | None:
        """What the assistant may tell of a user; None where nothing is known."""
        rows = self.users[FACTS].of(user_id) if FACTS in self.users else []
        return Facts(**{field.name: rows[0][field.name] for field in fields(Facts)}) if rows else None


def load_snapshot(folder: Path, before: Snapshot | None = None) -> Snapshot:
    """Check a snapshot folder against its manifest and lay it out for look-ups.

    Args:
        folder: of one snapshot, not the link `current`, so that nothing of another one gets in.
        before: the snapshot that was served so far: where the articles are the same, its assistant is kept.

    Raises:
        NoSnapshotError: when files are missing, changed or not of this snapshot.
    """
    mend = "publish again with `lcm-ml publish`"
    try:
        written = manifest.check(folder)
        snapshot_id, relations = written["snapshot_id"], written["relations"]
        if missing := NEEDED.keys() - relations.keys():
            raise NoSnapshotError(f"snapshot {snapshot_id} lacks {', '.join(sorted(missing))}", mend)
        with tempfile.TemporaryDirectory(prefix="lcm-serve-") as scratch, duckdb.connect() as con:
            con.execute("set threads = 1")  # the requests need the rest
            con.execute("set timezone = 'UTC'")
            con.execute("set memory_limit = ?", [SORTING_MEMORY])
            con.execute("set temp_directory = ?", [scratch])
            users = {
                name: UserRows(_sorted(con, folder / f"{name}.parquet", order, Path(scratch) / f"{name}.arrow"))
                for name, order in (NEEDED | OPTIONAL).items()
                if name in relations
            }
            articles = _articles(con, folder / f"{ARTICLES}.parquet") if ARTICLES in relations else NO_ARTICLES
            as_of_date = _as_of_date(con, folder / f"{PROFILES}.parquet")
    except LcmError as error:
        # Whoever asks need not know where the files lie.
        raise NoSnapshotError(error.message.replace(f"{folder}/", f"snapshot {folder.name}: "), mend) from None
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise NoSnapshotError(f"snapshot {folder.name} cannot be read ({type(error).__name__})", mend) from None
    known = before is not None and before.articles.equals(articles)
    assistant = before.assistant if before is not None and known else build_assistant(articles, _NOTHING_LABELLED)
    created_at = datetime.fromisoformat(written["created_at"])
    return Snapshot(snapshot_id, created_at, as_of_date, users, articles, assistant)


def _sorted(con: duckdb.DuckDBPyConnection, path: Path, order: str, target: Path) -> pa.Table:
    """The rows of a file, by user and `order`, mapped from a file whose name is removed: it goes with the process."""
    query = f"select * exclude snapshot_id from read_parquet($path) order by user_id, {order}"
    batches = con.sql(query, params={"path": str(path)}).to_arrow_reader(ROWS_A_BATCH)
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, batches.schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    table = pa.ipc.open_file(pa.memory_map(str(target))).read_all()
    target.unlink()
    return table


def _articles(con: duckdb.DuckDBPyConnection, path: Path) -> pl.DataFrame:
    query = f"select {', '.join(NO_ARTICLES.columns)} from read_parquet($path) order by article_id"
    return read(con, query, {"path": str(path)})


def _as_of_date(con: duckdb.DuckDBPyConnection, path: Path) -> date | None:
    found = first_row(con, "select max(as_of_date) from read_parquet(?)", [str(path)])
    return found[0] if found else None
