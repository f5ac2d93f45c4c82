"""Retention: events and scores older than the settings go, their totals stay, and nothing has to be computed anew."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import duckdb
import polars as pl

from lcm_ml import project
from lcm_ml.errors import LcmError
from lcm_ml.frames.frame import read
from lcm_ml.privacy import compact
from lcm_ml.registry.runs import Run, failure_recorded, record
from lcm_ml.warehouse import state, writer
from lcm_ml.warehouse.connection import Notify, connect, first_row, table_exists
from lcm_ml.warehouse.contracts import tables

FIXED = ("shop_timezone", "base_currency", "id_case")
"""Settings that kept rows cannot follow: raw.prunings has them, and a build with others is refused."""

SUMMED = {"kept_orders": "order_date", "kept_sessions": "session_date", "kept_refunds": "refund_date"}
"""Kept tables that take over the rows of an int model as they are, and the day of these rows."""

BY_LOAD = ("stg_events_checked", "int_events", "int_orders", "int_product_days", "int_refunds", "int_sessions")
DAY = "cast(timezone($zone, timezone('UTC', {})) as date)"

# An event without a time goes when an event of the moment it was loaded would.
OLD_EVENT = f"{DAY.format('coalesce(event_time, loaded_at)')} < $cut"

# The same id again, in a row with a later time: without the first one it would be taken for a new event.
COPIES = f"""
select copies.load_id, copies.source_file, copies.source_row
from staging.stg_events_checked as copies
where
    copies.rule = 'duplicate_event_id'
    and not ({OLD_EVENT})
    and copies.event_id in (
        select event_id from staging.stg_events_checked where rule is null and {OLD_EVENT}
    )
"""

# A rejected row has its time as text, under the name that its load took for event_time.
OLD_REJECTED = f"""
select rejected.load_id, rejected.source_file, rejected.source_row
from (
    select
        rows_held.load_id,
        rows_held.source_file,
        rows_held.source_row,
        rows_held.loaded_at,
        try_cast(json_extract_string(
            case when json_valid(rows_held.original) then rows_held.original end,
            '$."' || coalesce(json_extract_string(loads.options, '$.map.events.event_time'), 'event_time') || '"'
        ) as timestamp) as event_time
    from raw.rejected_rows as rows_held
    left join raw.loads as loads on rows_held.load_id = loads.load_id
    where rows_held.table_name = 'events'
) as rejected
where {OLD_EVENT}
"""

# As in monitoring/realised.py: told with the links that were known when the horizon ended.
TOTALS = """
with gone as (
    select * from ml.churn_scores where as_of_date < $cut
),

dates as (
    select distinct as_of_date, as_of_date + horizon_days as horizon_ends_on
    from gone
    where as_of_date + horizon_days <= $scoring_date
),

purchasers as (
    select distinct
        dates.as_of_date,
        dates.horizon_ends_on,
        case when days.linked_date < dates.horizon_ends_on then days.linked_user_id else days.user_id end as user_id
    from dates
    inner join marts.purchase_days as days
        on days.purchase_date >= dates.as_of_date and days.purchase_date < dates.horizon_ends_on
)

select
    gone.as_of_date,
    gone.horizon_days,
    gone.model_name,
    gone.model_version,
    gone.churn_decile,
    bool_or(gone.is_in_training_data) as is_in_training_data,
    count(*) as users,
    count(*) filter (where gone.is_served) as served_users,
    avg(gone.churn_probability) as mean_probability,
    case
        when gone.as_of_date + gone.horizon_days <= $scoring_date
            then count(*) filter (where purchasers.user_id is null)
    end as churned_users
from gone
left join purchasers
    on
        gone.as_of_date = purchasers.as_of_date
        and gone.as_of_date + gone.horizon_days = purchasers.horizon_ends_on
        and gone.user_id = purchasers.user_id
group by gone.as_of_date, gone.horizon_days, gone.model_name, gone.model_version, gone.churn_decile
order by gone.as_of_date, gone.model_version, gone.churn_decile
"""

OLD_SCORES = dict.fromkeys(("churn_scores", "churn_score_reasons", "churn_hints"), "as_of_date < $cut") | {
    # The tests of versions that still stand for something are read by `lcm-ml threshold` and `runs compare`.
    "evaluation_predictions": """
as_of_date < $cut
and not coalesce(model_version in (
    select unnest([model_version, evaluated_version])
    from ml.model_versions
    where status in ('champion', 'challenger')
), false)
"""
}
"""Tables of ml whose old rows go, and which rows these are."""


@dataclass(frozen=True)
class Limits:
    """How long events and scores are kept, in days before the scoring date; None: for good."""

    events: int | None
    scores: int | None

    @property
    def any(self) -> bool:
        """Whether there is anything to prune by."""
        return self.events is not None or self.scores is not None


@dataclass(frozen=True)
class Plan:
    """What a pruning has to do.

    Attributes:
        scoring_date: E of the last build.
        limits: the settings.
        events_before: the shop day before which events go; None: none go.
        pruned_before: that of the last pruning.
        scores_before: the as_of_date before which scores go; None: none go.
        fixed: the settings that stay as they are in kept rows.
        rows: rows that go, by table; tables with none are left out.
    """

    scoring_date: date
    limits: Limits
    events_before: date | None
    pruned_before: date | None
    scores_before: date | None
    fixed: dict[str, Any]
    rows: dict[str, int] = field(default_factory=dict)

    @property
    def described(self) -> dict[str, Any]:
        """For people."""
        return {
            "scoring_date": self.scoring_date,
            "event_retention_days": self.limits.events,
            "score_retention_days": self.limits.scores,
            "events_before": self.events_before,
            "scores_before": self.scores_before,
            "rows": self.rows,
        }


def limits(settings: Mapping[str, Any]) -> Limits:
    """The settings, when they leave what features and labels are computed from, and scores whose outcome is open.

    Raises:
        LcmError: naming the setting that is no number of days, or too small, and the smallest it can be.
    """
    step, horizon = int(settings["as_of_step_days"]), int(settings["churn_horizon_days"])
    least = {
        "event_retention_days": (
            int(settings["lapsed_window_days"]) + horizon + step,
            "lapsed_window_days + churn_horizon_days + as_of_step_days",
        ),
        "score_retention_days": (horizon + step, "churn_horizon_days + as_of_step_days"),
    }
    for name, (days, why) in least.items():
        value = settings[name]
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < days):
            raise LcmError(
                f"the var {name} is {value!r}: it takes whole days, {days} or more ({why})",
                f"set it in dbt_project.yml to {days} or more, or to null, then {state.BUILD}",
            )
    return Limits(settings["event_retention_days"], settings["score_retention_days"])


def survey(con: duckdb.DuckDBPyConnection, *, asked: bool = True) -> Plan:
    """What a pruning would do now. Nothing is changed.

    Args:
        con: a connection.
        asked: somebody asks for it; else events that are not lcm's to change are left, and no error.

    Raises:
        LcmError: when a setting is too small, the marts cannot be read, or the events are not lcm's to change.
    """
    build = state.require_built(con)
    settings = state.settings(con)
    wanted = limits(settings)
    if not asked and build["source_mode"] != "raw":
        wanted = Limits(None, wanted.scores)
    found = first_row(con, "select as_of_date from marts.as_of_dates where is_scoring_date")
    if found is None:
        raise LcmError("there is no scoring date: nothing was loaded", "lcm-ml load files --help")
    day: date = found[0]
    before = events_before = scores_before = None
    rows: dict[str, int] = {}
    if wanted.events is not None:
        _refuse_what_is_not_built(con, build["source_mode"])
        last = first_row(con, "select max(prune_before) from raw.prunings")
        before = last[0] if last else None
        cut = day - timedelta(days=wanted.events)
        if before is None or cut > before:
            events_before = cut
            rows |= _old_events(con, cut, str(settings["shop_timezone"]))
    if wanted.scores is not None:
        scores_before = _scores_before(con, day - timedelta(days=wanted.scores))
        rows |= _old_scores(con, scores_before)
    fixed = {name: settings[name] for name in FIXED}
    return Plan(day, wanted, events_before, before, scores_before, fixed, {name: n for name, n in rows.items() if n})


def _refuse_what_is_not_built(con: duckdb.DuckDBPyConnection, mode: str) -> None:
    if mode == "sample":
        raise LcmError(
            "this warehouse shows the sample, and every build brings its events back",
            "load your own events first: lcm-ml load files --help",
        )
    if mode == "external":
        raise LcmError(
            "staging reads tables of your own: lcm deletes nothing there, and keeps nothing of what you delete",
            "set event_retention_days to null",
        )
    if not table_exists(con, "intermediate", "int_kept_days"):
        raise LcmError("the last build was of an earlier version of lcm, and knows no kept rows", state.BUILD)
    # What no model has seen would leave without having been counted.
    differing = con.execute(
        """
        select models.model_name
        from (select unnest($models) as model_name) as models
        where
            exists (
                select load_id from raw.loads
                except
                select load_id from meta.processed_loads as held where held.model_name = models.model_name
            )
            or exists (
                select load_id from meta.processed_loads as held where held.model_name = models.model_name
                except
                select load_id from raw.loads
            )
        """,
        {"models": list(BY_LOAD)},
    ).fetchall()
    if differing:
        names = ", ".join(sorted(name for (name,) in differing))
        raise LcmError(f"there are loads that were not built yet: {names} do not hold what raw does", state.BUILD)


def _old_events(con: duckdb.DuckDBPyConnection, cut: date, zone: str) -> dict[str, int]:
    parameters = {"cut": cut, "zone": zone}
    counted = {
        "raw.events": f"select count(*) from raw.events where {OLD_EVENT}",
        "copies": f"select count(*) from ({COPIES})",
        "raw.rejected_rows": f"select count(*) from ({OLD_REJECTED})",
    }
    found = {name: int(con.execute(sql, parameters).fetchall()[0][0]) for name, sql in counted.items()}
    copies = found.pop("copies")
    return found | {"raw.events": found["raw.events"] + copies}


def _scores_before(con: duckdb.DuckDBPyConnection, cut: date) -> date:
    """Never the newest scores that were served, however old they are: readers go on seeing them."""
    newest = None
    if table_exists(con, "ml", "churn_scores"):
        newest = (first_row(con, "select max(as_of_date) from ml.churn_scores where is_served") or (None,))[0]
    return min(cut, newest) if newest is not None else cut


def _old_scores(con: duckdb.DuckDBPyConnection, cut: date) -> dict[str, int]:
    found = {}
    for name, condition in OLD_SCORES.items():
        if table_exists(con, "ml", name):
            counted = con.execute(f"select count(*) from ml.{name} where {condition}", {"cut": cut}).fetchall()
            found[f"ml.{name}"] = int(counted[0][0])
    return found


def prune(plan: Plan, notify: Notify, *, always_compact: bool = True) -> dict[str, Any]:
    """Carry a plan out, made under the same writer lock: everything in one transaction, then the file is written anew.

    Args:
        plan: from `survey`.
        notify: told when another process has to be waited for, and what kept the file from being written anew.
        always_compact: write the file anew although little of it is free, and fail where that fails.

    Returns:
        What plan.described says; `run_id`, `kept`: rows added to each table of totals, `compacted`, and the size of
        the file in bytes before and after.

    Raises:
        LcmError: when the tables of totals do not say what the events do, or the warehouse cannot be written: then
            nothing was changed. Or when there is no room to write the file anew: what was pruned stays so.
    """
    path = project.warehouse_path()
    size = path.stat().st_size
    if not plan.rows:
        return {**plan.described, "run_id": None, "kept": {}, "compacted": False, "bytes_before": size, "bytes": size}
    run = Run("prune", {name: str(value) for name, value in plan.described.items() if name != "rows"})
    kept: dict[str, int] = {}

    def change(con: duckdb.DuckDBPyConnection) -> dict[str, pl.DataFrame]:
        if plan.events_before is not None:
            kept.update(_prune_events(con, plan, plan.events_before, run))
        totals = pl.DataFrame()
        if plan.scores_before is not None:
            totals = _prune_scores(con, plan, plan.scores_before, run)
            kept["ml.churn_score_totals"] = totals.height
        return {"churn_score_totals": totals}

    with failure_recorded(run, notify):
        record(run, change, notify)
    compacted = _compact(notify, always=always_compact)
    return {
        **plan.described,
        "run_id": run.run_id,
        "kept": {name: n for name, n in kept.items() if n},
        "compacted": compacted,
        "bytes_before": size,
        "bytes": path.stat().st_size,
    }


def _prune_events(con: duckdb.DuckDBPyConnection, plan: Plan, cut: date, run: Run) -> dict[str, int]:
    raw = tables("raw")
    writer.ensure(con, raw)
    since = plan.pruned_before or date.min
    days = {"cut": cut, "since": since}
    kept = {}
    for name, day in SUMMED.items():
        columns = ", ".join(raw[name].column_names)
        kept[name] = _changed(
            con,
            f"insert into raw.{name} ({columns}) "
            f"select {columns} from intermediate.{name.replace('kept', 'int')} where {day} >= $since and {day} < $cut",
            days,
        )
    kept["kept_order_products"] = _changed(
        con,
        """
        insert into raw.kept_order_products
            (user_id, order_key, purchase_date, product_id, amount, last_at, last_amount)
        select
            user_id, order_key, event_date, product_id, sum(amount), last_at,
            max(amount) filter (where event_time = last_at)
        from (
            select
                *, max(event_time) over (partition by user_id, order_key, event_date, product_id) as last_at
            from intermediate.int_events
            where event_type = 'purchase' and event_date < $cut
        )
        group by user_id, order_key, event_date, product_id, last_at
        """,
        {"cut": cut},
    )
    _check_sums(con, days)
    kept["kept_days"] = _changed(
        con,
        """
        insert into raw.kept_days (known_date, day_hash)
        select events.event_date, xor(events.day_hash, coalesce(kept.day_hash, 0))
        from intermediate.int_event_days as events
        left join intermediate.int_kept_days as kept on events.event_date = kept.known_date
        where events.event_date < $cut
        """,
        {"cut": cut},
    )
    gone = _delete_events(con, cut, str(plan.fixed["shop_timezone"]))
    con.execute(
        """
        insert into raw.prunings
            (run_id, pruned_at, prune_before, scoring_date, retention_days, settings, events, rejected_rows)
        values (?, ?, ?, ?, ?, ?, ?, ?)
        """,
        [
            run.run_id,
            run.started_at,
            cut,
            plan.scoring_date,
            plan.limits.events,
            json.dumps(plan.fixed, sort_keys=True),
            gone["raw.events"],
            gone["raw.rejected_rows"],
        ],
    )
    return {f"raw.{name}": n for name, n in kept.items()}


def _changed(con: duckdb.DuckDBPyConnection, sql: str, parameters: dict[str, Any]) -> int:
    """Run a statement; the rows that it added, changed or removed."""
    return int(con.execute(sql, parameters).fetchall()[0][0])


def _check_sums(con: duckdb.DuckDBPyConnection, days: dict[str, Any]) -> None:
    """Events leave only when the kept rows count each of them."""
    found = con.execute(
        """
        select
            (select coalesce(sum(events), 0) from raw.kept_sessions where session_date >= $since)
                - count(*),
            (select coalesce(sum(lines), 0) from raw.kept_orders where order_date >= $since)
                - count(*) filter (where event_type = 'purchase'),
            (select count(*) from raw.kept_refunds where refund_date >= $since)
                - count(*) filter (where event_type = 'refund')
        from intermediate.int_events
        where event_date < $cut
        """,
        days,
    ).fetchall()[0]
    if any(found):
        raise LcmError(
            "the sums of sessions, orders and refunds do not count the events that are there "
            f"(differences: {', '.join(str(n) for n in found)}); nothing was changed",
            "run `dbt build --full-refresh`",
        )


def _delete_events(con: duckdb.DuckDBPyConnection, cut: date, zone: str) -> dict[str, int]:
    parameters = {"cut": cut, "zone": zone}
    con.execute(f"create or replace temporary table old_copies as {COPIES}", parameters)
    con.execute(f"create or replace temporary table old_rejected as {OLD_REJECTED}", parameters)
    row = "(load_id, source_file, source_row)"
    held = "(select load_id, source_file, source_row from {})"
    old_event = f"({OLD_EVENT} or {row} in {held.format('old_copies')})"
    conditions = {
        "raw.events": (old_event, "rows_loaded", parameters),
        "raw.rejected_rows": (
            f"table_name = 'events' and {row} in {held.format('old_rejected')}",
            "rows_rejected",
            {},
        ),
    }
    gone = {}
    for table, (condition, column, values) in conditions.items():
        con.execute(
            f"""
            update raw.load_files as files
            set
                {column} = files.{column} - gone.n,
                rows_pruned = coalesce(files.rows_pruned, 0) + gone.n
            from (select load_id, source_file, count(*) as n from {table} where {condition} group by all) as gone
            where
                files.table_name = 'events'
                and files.load_id = gone.load_id
                and files.source_file = gone.source_file
            """,
            values,
        )
        gone[table] = _changed(con, f"delete from {table} where {condition}", values)
    con.execute(f"delete from staging.stg_events_checked where {old_event}", parameters)
    con.execute("delete from intermediate.int_events where event_date < $cut", {"cut": cut})
    con.execute("drop table old_copies")
    con.execute("drop table old_rejected")
    return gone


def _prune_scores(con: duckdb.DuckDBPyConnection, plan: Plan, cut: date, run: Run) -> pl.DataFrame:
    totals = read(con, TOTALS, {"cut": cut, "scoring_date": plan.scoring_date})
    for name, condition in OLD_SCORES.items():
        con.execute(f"delete from ml.{name} where {condition}", {"cut": cut})
    return totals.with_columns(run_id=pl.lit(run.run_id))


def _compact(notify: Notify, *, always: bool) -> bool:
    """Give the room back to the file system.

    Returns:
        Whether the file was written anew.
    """
    if not always:
        with connect(notify=notify) as con:
            if compact.free_share(con) < compact.WORTHWHILE:
                return False
    try:
        compact.rewrite_file(notify)
    except LcmError as error:
        if always:
            raise
        notify(f"{error.message}; DuckDB uses the free room in the file meanwhile")
        return False
    return True


def elsewhere() -> list[dict[str, str]]:
    """Where rows from before a pruning may be held still, and the command that removes them there."""
    places = {
        "published": ("older snapshots", "lcm-ml publish, then lcm-ml snapshots prune --keep 1"),
        "backups": ("backups from before", "lcm-ml backup --keep 1, or remove them by hand"),
        "exports": ("exports", "remove them by hand"),
    }
    found = []
    for name, (what, command) in places.items():
        folder = project.beside_warehouse(name)
        if folder.is_dir() and any(folder.iterdir()):
            found.append({"what": f"{what} in {folder}", "next": command})
    path = project.warehouse_path()
    found += [
        {"what": f"the warehouse before a restore, {earlier}", "next": "remove it by hand"}
        for earlier in sorted(path.parent.glob(f"{path.stem}.before-restore-*.duckdb"))
    ]
    return found
