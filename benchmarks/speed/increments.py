"""One more day, and late rows of a hundred users, beside the full build; and the proof that nothing differs."""

import json
import shutil
from typing import Any

from speed.measure import Measure
from speed.shop import Shop, connect


def measure(shop: Shop, rounds: int) -> list[Measure]:
    full, day, late = [], [], []
    differing: list[str] = []
    models: dict[str, dict[str, float]] = {}
    for done in range(rounds):
        path = shop.copy(shop.history)
        full.append(_total(shop.build(path, "--full-refresh")))
        shop.load(path, "day")
        of_day = shop.build(path)
        day.append(_total(of_day))
        shop.load(path, "late")
        of_late = shop.build(path)
        late.append(_total(of_late))
        if not done:
            models = {"day": of_day, "late": of_late}
            whole = shop.copy(path)
            shop.build(whole, "--full-refresh")
            differing = _differing(path, whole)
            shutil.rmtree(whole.parent)
        shutil.rmtree(path.parent)
    same = f"tables that differ from a full refresh: {', '.join(differing) or 'none'}"
    return [
        Measure("one more day", "the models' time after a day of new events, beside the full build", 0.08, day, full,
                note=f"slowest: {json.dumps(_slowest(models['day']))}", details=models["day"]),
        Measure("late rows", "the models' time after late rows of 100 users, 60 days back, beside the full build", 0.05,
                late, full, note=f"{same}; slowest: {json.dumps(_slowest(models['late']))}",
                details=models["late"]),
    ]  # fmt: skip


def _total(built: dict[str, float]) -> float:
    return sum(built.values())


def _slowest(built: dict[str, float]) -> dict[str, float]:
    return {name: round(taken, 2) for name, taken in sorted(built.items(), key=lambda item: -item[1])[:5]}


def _differing(one: Any, other: Any) -> list[str]:
    """Tables of intermediate and marts whose rows differ, floats beyond nine digits."""
    con = connect(one, read_only=True)
    con.execute(f"attach '{other}' as other (read_only)")
    names = con.execute(
        "select table_schema, table_name from information_schema.tables where table_catalog = current_database() "
        "and table_type = 'BASE TABLE' and table_schema in ('intermediate', 'marts') order by all"
    ).fetchall()
    found = []
    for schema, name in names:
        columns = con.execute(f"describe {schema}.{name}").fetchall()
        taken = ", ".join(
            f"round({column}, 9)" if kind in ("DOUBLE", "FLOAT") else column
            for column, kind, *_ in columns
            if column != "loaded_at"
        )
        ours, theirs = f"select {taken} from {schema}.{name}", f"select {taken} from other.{schema}.{name}"
        if con.execute(
            f"(({ours}) except all ({theirs})) union all (({theirs}) except all ({ours})) limit 1"
        ).fetchall():
            found.append(f"{schema}.{name}")
    con.close()
    return found
