"""Forget users: one pass over tables, snapshots and files, which can be killed at any moment and run again."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb

import lcm_ml
from lcm_ml import project
from lcm_ml.errors import LcmError, UsageError
from lcm_ml.files import replace_private
from lcm_ml.privacy import compact, keys, places, record, snapshots
from lcm_ml.privacy.places import Advance, Search
from lcm_ml.privacy.suppression import LISTED, forgotten
from lcm_ml.privacy.tables import Users, id_columns, text_columns
from lcm_ml.privacy.verify import Found, look
from lcm_ml.sources.pseudonyms import Pseudonyms
from lcm_ml.warehouse import state, writer
from lcm_ml.warehouse.connection import Notify, connect, rows, table_exists, transaction, writer_lock
from lcm_ml.warehouse.contracts import tables

PENDING = "pending.json"


@dataclass
class Plan:
    """What a pass has to do.

    Attributes:
        ids: the users asked for, and the visitors linked to them, as staging has them.
        asked: how many were asked for.
        unknown: of these, the ones that no table has in a column of users, and that were not forgotten before.
        rows: rows of them, and cells of other rows' text that name them, by table and column.
        files: files beside the warehouse, and of dbt, that hold them.
        outside: files they were loaded from, which are not lcm's to change.
        models: versions trained with their rows: model_version, model_name, status, rows.
    """

    ids: list[str]
    asked: int
    unknown: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)

    @property
    def described(self) -> dict[str, Any]:
        """For people: counts and places, no id."""
        return {
            "users": self.asked,
            "visitors": len(self.ids) - self.asked,
            "unknown": len(self.unknown),
            "rows": self.rows,
            "files": self.files,
            "outside": self.outside,
            "models": self.models,
        }


def survey(user_ids: Sequence[str], advance: Advance, notify: Notify, *, again: bool = False) -> Plan:
    """Look for everything that is held of the users. Nothing is changed, but for a key that is made where none is.

    Args:
        user_ids: as the tables have them.
        advance: told what is looked at.
        notify: told when another process has to be waited for.
        again: they were found on record, and may be none.

    Raises:
        UsageError: when no id is given.
        LcmError: when there is no warehouse, or the rows are not lcm's to change.
    """
    hashes = keys.keyed_hash(create=True)
    with connect(read_only=True, notify=notify) as con:
        asked = _cleaned(con, hashes, user_ids)
        if not asked and not again:
            raise UsageError("no user was named", "lcm-ml forget USER_ID, or --file LIST with one id in each line")
        advance("tables", 0)
        users = Users(con, asked, hashes)
        _refuse_others_tables(con, users)
        files = places.holding(Search(users), [*places.beside(), *places.of_dbt()], advance, "files")
        return Plan(
            ids=users.ids,
            asked=len(asked),
            unknown=sorted(set(asked) - _known(con, users) - _listed(con, hashes, asked)),
            rows=users.counts() | users.mentions(),
            files=[str(path) for path in files],
            outside=_sources(con, users),
            models=_models(con),
        )


def _cleaned(con: duckdb.DuckDBPyConnection, hashes: Pseudonyms, user_ids: Sequence[str]) -> list[str]:
    found = con.execute(
        f"select distinct {hashes.cleaned('id')} as id from (select unnest(?::varchar[]) as id) order by 1",
        [list(user_ids)],
    )
    return [row[0] for row in found.fetchall() if row[0] is not None]


def _refuse_others_tables(con: duckdb.DuckDBPyConnection, users: Users) -> None:
    build = state.last_build(con)
    mode = build["source_mode"] if build else "raw"
    if mode == "sample":
        raise LcmError(
            "this warehouse shows the sample: its users are simulated, and every build brings them back",
            "load your own events first: lcm-ml load files --help",
        )
    if mode == "external" and (held := users.counts(schemas=("staging",))):
        raise LcmError(
            f"staging reads tables of your own, and they hold the users: {', '.join(held)}",
            "delete them there, run `dbt build`, then forget them here",
        )


def _known(con: duckdb.DuckDBPyConnection, users: Users) -> set[str]:
    """The users that any table has in a column of users."""
    found: set[str] = set()
    for name, columns in text_columns(con).items():
        for column in id_columns(columns):
            value = users.hashes.cleaned(column)
            held = con.execute(f"select distinct {value} from {name} where {users.condition([column])}")
            found.update(row[0] for row in held.fetchall())
    return found


def _listed(con: duckdb.DuckDBPyConnection, hashes: Pseudonyms, ids: Sequence[str]) -> set[str]:
    if not table_exists(con, "meta", "forgotten_users"):
        return set()
    hashes.prepare(con)
    found = con.execute(
        f"select id from (select unnest(?::varchar[]) as id) where {hashes.sql('id')} in {LISTED}", [list(ids)]
    )
    return {row[0] for row in found.fetchall()}


def _sources(con: duckdb.DuckDBPyConnection, users: Users) -> list[str]:
    found: set[str] = set()
    for name, condition in users.loaded().items():
        held = con.execute(f"select distinct source_file from {name} where {condition}")
        found.update(row[0] for row in held.fetchall())
    return sorted(found)


def _models(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    if not table_exists(con, "ml", "model_versions") or not table_exists(con, "marts", "user_churn_labels"):
        return []
    return rows(
        con,
        """
        select versions.model_version, versions.model_name, versions.status, count(*) as rows
        from ml.model_versions as versions
        inner join marts.user_churn_labels as labels
            on labels.as_of_date between versions.trained_from and versions.trained_to
        where labels.user_id in (select user_id from wanted_users) and versions.status != 'deleted'
        group by all
        order by 1
        """,
    )


def to_forget_again(notify: Notify) -> list[str]:
    """The ids in the warehouse whose users were forgotten: by its list, and by the record, which a backup lacks.

    Raises:
        LcmError: when there is no warehouse, or the key of the hashes is gone.
    """
    with connect(read_only=True, notify=notify) as con:
        if not (known := forgotten(con)):
            return []
        hashes = keys.keyed_hash()
        hashes.prepare(con)
        found: set[str] = set()
        for name, columns in text_columns(con).items():
            for column in id_columns(columns):
                held = con.execute(
                    f"select distinct {hashes.cleaned(column)} from {name} "
                    f"where {hashes.sql(column)} in (select unnest(?::varchar[]))",
                    [sorted(known)],
                )
                found.update(row[0] for row in held.fetchall())
        return sorted(found)


def pending() -> Plan | None:
    """The pass that was begun and not finished, or None.

    Raises:
        LcmError: when its file cannot be read.
    """
    path = keys.folder() / PENDING
    if not path.exists():
        return None
    try:
        return Plan(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise LcmError(f"{path} cannot be read", "remove it, and forget the same users again") from None


def forget(plan: Plan, advance: Advance, notify: Notify) -> dict[str, Any]:
    """Carry a plan out. Each step can be done twice, so a pass that was killed is done again from the start.

    Returns:
        What plan.described says, the snapshots that were rewritten, what became of each file, the record's sequence,
        and `left`: what still holds the users and is not lcm's to change.

    Raises:
        LcmError: when a step fails; `lcm-ml forget` then goes on with it.
    """
    hashes = keys.keyed_hash()
    with writer_lock("lcm-ml forget", notify):
        _keep(plan)
        advance("delete", 0.0)
        _delete(plan, hashes, notify)
        advance("build", 0.1)
        _build(plan, lambda what, share: advance(f"build {what}", 0.1 + 0.5 * share), notify)
        advance("publish", 0.6)
        rewritten = _publish(plan, hashes, lambda what, share: advance(f"publish {what}", 0.6 + 0.1 * share), notify)
        advance("files", 0.7)
        outcomes = _files(plan, hashes, lambda what, share: advance(what, 0.7 + 0.1 * share))
        advance("compact", 0.8)
        if plan.rows or _in_bytes(plan, hashes):
            compact.rewrite_file(notify)
        advance("verify", 0.9)
        found = look(plan.ids, hashes, lambda what, share: advance(what, 0.9 + 0.1 * share), notify)
        advance("record", 1.0)
        entry = _record(plan, hashes, found, len(outcomes), rewritten, notify)
        (keys.folder() / PENDING).unlink()
    return {
        **plan.described,
        "snapshots": rewritten,
        "outcomes": outcomes,
        "record": entry["sequence"],
        "left": found.own,
        "outside": sorted({*plan.outside, *found.outside}),
    }


def _keep(plan: Plan) -> None:
    replace_private(keys.make_folder() / PENDING, json.dumps(dataclasses.asdict(plan)))


def _delete(plan: Plan, hashes: Pseudonyms, notify: Notify) -> None:
    """Onto the list, and out of raw and ml, in one transaction."""
    meta, raw = tables("meta"), tables("raw")
    with connect(notify=notify) as con, transaction(con):
        writer.ensure(con, {"forgotten_users": meta["forgotten_users"]})
        if table_exists(con, "raw", "load_files"):
            writer.ensure(con, {"load_files": raw["load_files"]})
        users = Users(con, plan.ids, hashes)
        changed = sum(n for name, n in users.delete().items() if name.startswith("raw."))
        hashes.prepare(con)
        con.execute(
            f"""
            merge into meta.forgotten_users as listed
            using (select {hashes.sql("user_id")} as id_hash from wanted_users) as wanted
                on listed.id_hash = wanted.id_hash
            when matched then update set rows_changed = listed.rows_changed + {changed}, record_hash = null
            when not matched then
                insert (id_hash, forgotten_at, rows_changed)
                values (wanted.id_hash, cast(current_timestamp as timestamp), {changed})
            """
        )


def _build(plan: Plan, advance: Advance, notify: Notify) -> None:
    from lcm_ml.warehouse.build import build

    with connect(notify=notify) as con:
        is_built = state.last_build(con) is not None
    if plan.rows and is_built:
        build(advance, notify)


def _publish(plan: Plan, hashes: Pseudonyms, advance: Advance, notify: Notify) -> list[str]:
    """A new snapshot for readers first; then the older ones are rewritten."""
    from lcm_ml.cli.publish import run_publish
    from lcm_ml.publishing import catalogue

    if not catalogue.snapshot_folders(catalogue.published_folder()):
        return []
    if plan.rows and catalogue.current_id(catalogue.published_folder()) is not None:
        run_publish(advance)
    with catalogue.publishing_lock("lcm-ml forget", notify) as published, searching(plan.ids, hashes) as search:
        return snapshots.rewrite(search, published, advance)


@contextlib.contextmanager
def searching(ids: Sequence[str], hashes: Pseudonyms) -> Iterator[Search]:
    """A search of files, in a connection that has no file of its own."""
    with duckdb.connect() as con:
        yield Search(Users(con, ids, hashes))


def _in_bytes(plan: Plan, hashes: Pseudonyms) -> bool:
    with searching(plan.ids, hashes) as search:
        return search.bytes_hold(project.warehouse_path())


def _files(plan: Plan, hashes: Pseudonyms, advance: Advance) -> dict[str, str]:
    """Rewrite or remove each file that holds the users; what is none of these is left, and told.

    Returns:
        The file to rewritten, masked, removed or left.
    """
    outcomes: dict[str, str] = {}
    own = {f"{project.warehouse_path().name}.wal"}
    with searching(plan.ids, hashes) as search:
        for path in places.holding(search, [*places.beside(), *places.of_dbt()], advance, "files"):
            if path.name not in own:
                outcomes[str(path)] = search.clean(path)
        for user_id in plan.ids:
            for path in (folder := places.export_folder(hashes, user_id)).glob("*"):
                path.unlink()
                outcomes[str(path)] = "removed"
            if folder.is_dir():
                folder.rmdir()
    return outcomes


def _record(
    plan: Plan, hashes: Pseudonyms, found: Found, files: int, rewritten: list[str], notify: Notify
) -> dict[str, Any]:
    """Enter the pass in the record, then close its users on the list."""
    with connect(notify=notify) as con:
        hashes.prepare(con)
        users = Users(con, plan.ids, hashes)
        listed = con.execute(f"select {hashes.sql('user_id')} from wanted_users order by 1").fetchall()
        entry = record.append(
            hashes,
            {
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "action": "forget",
                "users": [row[0] for row in listed],
                "rows": plan.rows,
                "files": files,
                "snapshots": rewritten,
                "models": [model["model_version"] for model in plan.models],
                "left": len(found.own),
                "lcm_version": lcm_ml.__version__,
            },
        )
        con.execute(
            f"update meta.forgotten_users set record_hash = ? "
            f"where id_hash in (select {users.hashes.sql('user_id')} from wanted_users)",
            [entry["hash"]],
        )
    return entry
