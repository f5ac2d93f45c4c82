"""Alerts that follow from what a cycle loaded, cheap enough for every one; `lcm-ml monitor` raises the others."""

from typing import Any

import duckdb

from lcm_ml.frames.frame import scoring_date
from lcm_ml.live.inbox import FAILED, Inbox
from lcm_ml.monitoring.diagnosis import Alert
from lcm_ml.monitoring.signs import DataLimits
from lcm_ml.warehouse.connection import first_row

SHOWN = 3


def current_alerts(con: duckdb.DuckDBPyConnection, inbox: Inbox, settings: dict[str, Any]) -> list[Alert]:
    """Rows of the newest load that were quarantined, and files that could not be loaded.

    Args:
        con: an open connection.
        inbox: where failed files lie.
        settings: of the last build.
    """
    day = scoring_date(con)
    found = []
    newest = first_row(
        con,
        """
        select count(*), count(*) filter (where rule is not null and rule not like 'duplicate%')
        from staging.stg_events_checked
        where load_id = (select max(load_id) from raw.load_files where table_name = 'events')
        """,
    )
    limit = DataLimits.from_settings(settings).max_quarantined_share
    if newest and newest[0] and newest[1] / newest[0] > limit:
        share = newest[1] / newest[0]
        text = f"{share:.1%} of the rows of the newest load were quarantined, limit {limit:.1%}"
        found.append(Alert("warning", "quarantine", "newest load", text, day))
    folder = inbox.folder / FAILED
    failed = sorted(path.name for path in folder.iterdir() if not path.name.startswith(".") and path.suffix != ".error")
    if failed:
        more = f" and {len(failed) - SHOWN:,} more" if len(failed) > SHOWN else ""
        text = f"{len(failed):,} files of the inbox could not be loaded: {', '.join(failed[:SHOWN])}{more}"
        found.append(Alert("warning", "failed_files", FAILED, text, day))
    return found
