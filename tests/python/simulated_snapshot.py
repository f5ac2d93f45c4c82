"""Published folders with as many users as wanted, made without a warehouse: columns are those of the contracts."""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from lcm_ml.publishing import manifest
from lcm_ml.service import store
from lcm_ml.warehouse import contracts

ROWS_A_USER = {
    "churn_reasons_latest": 3, "user_stage_history": 2, "user_interests": 5, "recommendations_latest": 10,
}  # fmt: skip
ARTICLES = """
    select * from (values
        ('a1', 'delivery', 'Where is my parcel', 'Parcels arrive in three days. Follow your parcel by its number.'),
        ('a2', 'payment', 'Payment problems', 'We take cards. A double charge is returned within 3 days.')
    ) as articles(article_id, intent, title, body)
"""
KNOWN = {
    "user_id": "'U' || lpad(cast(u as varchar), 7, '0')",
    "stage": "'active'",
    "risk_band": "'high'",
    "reason": "'it was seldom there in the last days, ' || u",
    "explanation": "'bought together with product ' || u",
    "favourite_weekday": "1 + u % 7",
    "open_tickets": "u % 3",
    "currency": "'USD'",
}


def publish(folder: Path, users: int, without: tuple[str, ...] = (), **texts: str) -> str:
    """Publish a snapshot as `lcm-ml publish` lays it out, its rows in no order, and point `current` at it.

    Args:
        folder: the published folder; made where there is none.
        users: U0000000, U0000001 ...; but the first one has the id that `texts` gives.
        without: relations to leave out.
        texts: column to its value in all rows.

    Returns:
        The snapshot's id.
    """
    snapshot_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"
    target = folder / "snapshots" / snapshot_id
    target.mkdir(parents=True)
    columns = {name: contracts.descriptions()[name].types for name in (*store.NEEDED, *store.OPTIONAL)}
    queries = {name: _query(kinds, users, ROWS_A_USER.get(name, 1), texts) for name, kinds in columns.items()}
    queries[store.ARTICLES] = ARTICLES
    relations = {}
    with duckdb.connect() as con:
        for name, query in queries.items():
            if name not in without:
                path = target / f"{name}.parquet"
                con.execute(
                    f"copy (select *, '{snapshot_id}' as snapshot_id from ({query})) to '{path}' (format parquet)"
                )
                relations[name] = {"sha256": manifest.digest(path), "columns": [*columns.get(name, ()), "snapshot_id"]}
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    manifest.write(target, {"snapshot_id": snapshot_id, "created_at": created_at, "relations": relations})
    point_at(folder, snapshot_id)
    return snapshot_id


def point_at(folder: Path, snapshot_id: str) -> None:
    """Let `current` point at a snapshot, in one step."""
    fresh = folder / ".current.fresh"
    fresh.symlink_to(Path("snapshots") / snapshot_id)
    fresh.replace(folder / "current")


def _query(kinds: Mapping[str, str], users: int, rows: int, texts: Mapping[str, str]) -> str:
    columns = ", ".join(_expression(name, kind, texts) for name, kind in kinds.items())
    return (
        f"select {columns} from range({users}) as users(u) cross join range(1, {rows + 1}) as ranks(k) order by hash(u)"
    )


def _expression(name: str, kind: str, texts: Mapping[str, str]) -> str:
    drawn = f"hash(u, k, '{name}')"
    plain = {
        "varchar": f"'value ' || {drawn} % 10000",
        "date": f"date '2026-01-01' - cast({drawn} % 300 as integer)",
        "timestamp": "timestamp '2026-01-01 10:00:00'",
        "boolean": f"{drawn} % 2 = 0",
        "double": f"{drawn} % 10000 / 10000.0",
    }
    value = "k" if name.endswith("rank") else KNOWN.get(name) or plain.get(kind, f"{drawn} % 100")
    if name in texts:
        quoted = "'" + texts[name].replace("'", "''") + "'"
        value = f"case when u = 0 then {quoted} else {value} end" if name == "user_id" else quoted
    if name == "as_of_date":
        value = "date '2026-01-01'"
    return f"cast({value} as {kind}) as {name}"
