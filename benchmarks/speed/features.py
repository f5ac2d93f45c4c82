"""user_features, all columns at all as_of_dates of a year: against one plain query per date, Polars, and the floor."""

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import polars as pl

from speed import reference_features
from speed.measure import Measure, in_turns, seconds
from speed.shop import Shop, connect

SQL = (Path(__file__).parent / "reference_features.sql").read_text(encoding="utf-8")
TABLES = ("int_events", "int_sessions", "int_orders", "int_product_days", "int_refunds")
FEATURETOOLS = ("featuretools==1.31.0", "pandas<3", "setuptools<81", "pyarrow")
"""In an environment of its own: it needs an older pandas than others here would take."""

POLARS_EVENTS = 10_000_000
"""Up to so many: the reference holds all events in memory, 8 GB then."""

WRITE = "create or replace table bench.{} as {}"


def measure(shop: Shop, rounds: int) -> list[Measure]:
    path = shop.copy(shop.history)
    shop.compile_whole("user_features")
    ours = shop.compiled("user_features").replace(f'"{shop.history.stem}".', "")
    con = connect(path)
    con.execute("create schema bench")
    dates = [row[0] for row in con.execute("select as_of_date from marts.as_of_dates order by 1").fetchall()]

    # The model is the first date's query, which insert_other_dates repeats.
    first_date = f"date '{dates[0]}'"
    assert first_date in ours
    of_dates = [ours.replace(first_date, f"date '{day}'") for day in dates]

    def run_ours() -> float:
        return seconds(lambda: _one_after_another(con, "ours", of_dates))

    def run_plain() -> float:
        queries = [SQL.replace("$as_of", f"date '{day}'") for day in dates]
        parts = [
            f"select date '{day}' as as_of_date, * from ({query})" for day, query in zip(dates, queries, strict=True)
        ]
        return seconds(lambda: _one_after_another(con, "plain", parts))

    def run_floor() -> float:
        return seconds(lambda: _one_after_another(con, "floor", [_one_pass(con, day) for day in dates]))

    def run_polars() -> float:
        tables = reference_features.read(con)

        def work() -> None:
            frames = [reference_features.features_at(tables, day) for day in dates]
            con.register("of_polars", pl.concat(frames))
            con.execute(WRITE.format("of_polars", "select * from of_polars"))

        return seconds(work)

    others = [run_polars] if shop.events <= POLARS_EVENTS else []
    mine, plain, floor, *of_polars = in_turns(rounds, run_ours, run_plain, run_floor, *others)
    same = {
        table: f"columns whose values differ: {_differing(con, table) or 'none'}"
        for table in ("plain", *(["of_polars"] if of_polars else []))
    }
    rows = con.execute("select count(*) from bench.ours").fetchone()[0]
    values = rows * len(con.execute("describe bench.ours").fetchall())
    of_featuretools = _featuretools(con, shop, [dates[0], dates[-1]])
    tables = [sum(shop.built[name] for name in TABLES)] * rounds
    con.close()
    shutil.rmtree(path.parent)
    what = f"user_features, {len(dates)} as_of_dates"
    whole = [own + shared for own, shared in zip(mine, tables, strict=True)]
    measures = [
        Measure("features, plain SQL", f"{what}, beside one plain query per date", 3, mine, plain, True, same["plain"]),
        Measure("features with their tables", "the same with the tables they read", None, whole, plain, True),
        Measure("features, floor", f"{what}, beside as many sums, a pass a date, and the writing", 2, mine, floor),
    ]
    for theirs in of_polars:
        measures.append(Measure("features, Polars", f"{what}, beside Polars", 3, mine, theirs, True, same["of_polars"]))
    if of_featuretools:
        per_value = [own / values for own in mine]
        theirs = [of_featuretools["seconds"] / of_featuretools["values"]] * rounds
        some = f"seconds for a value; featuretools computes {of_featuretools['values']:,}"
        measures.append(Measure("features, featuretools", f"{what}, by value", 100, per_value, theirs, True, some))
    return measures


def _one_after_another(con: Any, table: str, queries: list[str]) -> None:
    con.execute(f"drop table if exists bench.{table}")
    for done, query in enumerate(queries):
        con.execute(f"insert into bench.{table} {query}" if done else WRITE.format(table, query))


def _featuretools(con: Any, shop: Shop, dates: list[Any]) -> dict[str, float] | None:
    """Seconds and values of featuretools for some users, once; None where it cannot be installed."""
    home = shop.folder.parent / "featuretools"
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
        done = subprocess.run([python, "-m", "pip", "-q", "install", *FEATURETOOLS], capture_output=True, check=False)
        if done.returncode:
            print("featuretools cannot be installed here, and is not measured", file=sys.stderr)
            shutil.rmtree(home)
            return None
    path = shop.folder / "some_events.parquet"
    con.execute(
        "copy (select event_id, user_id, event_time, event_type, session_id, product_id, category, channel, "
        "cast(quantity as double) as quantity, cast(amount as double) as amount from intermediate.int_events where "
        "user_id in (select user_id from intermediate.int_events group by 1 order by md5(user_id) limit 500)) "
        f"to '{path}' (format parquet)"
    )
    script = Path(__file__).parent / "featuretools_features.py"
    told = subprocess.run(
        [python, script, path, ",".join(map(str, dates))], capture_output=True, text=True, check=True
    ).stdout
    path.unlink()
    result: dict[str, float] = json.loads(told.splitlines()[-1])
    return result


def _one_pass(con: Any, day: Any) -> str:
    """As many sums as user_features has columns, over the narrow events, grouped by user: none of them has a filter."""
    columns = len(con.execute("describe marts.user_features").fetchall()) - 2
    sums = ", ".join(f"sum(cast(event_hour as integer) + {number}) as s{number}" for number in range(columns))
    return (
        f"select date '{day}' as as_of_date, user_id, {sums} from intermediate.int_events "
        f"where event_date < date '{day}' group by user_id having max(event_date) >= date '{day}' - 84"
    )


def _differing(con: Any, table: str) -> str:
    """The columns in which a reference's table says something else than user_features, beyond 1e-9."""

    def differs(name: str, kind: str) -> str:
        if kind != "DOUBLE":
            return f"o.{name} is distinct from p.{name}"
        near = f"abs(o.{name} - p.{name}) <= 1e-9 * greatest(1, abs(o.{name}))"
        return f"not coalesce({near}, o.{name} is null and p.{name} is null)"

    joined = f"bench.ours as o full join bench.{table} as p using (user_id, as_of_date)"
    return ", ".join(
        name
        for name, kind, *_ in con.execute("describe bench.ours").fetchall()
        if name not in ("user_id", "as_of_date")
        and con.execute(f"select 1 from {joined} where {differs(name, kind)} limit 1").fetchall()
    )
