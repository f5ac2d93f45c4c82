"""What can go wrong in a shop, done to its raw events, or to a warehouse that was built from them."""

from datetime import date, timedelta
from pathlib import Path

import duckdb

from lcm_ml.frames.frame import scoring_frame, training_frame
from lcm_ml.monitoring.diagnosis import Alert, diagnose
from lcm_ml.monitoring.drift import feature_drift
from lcm_ml.monitoring.signs import vital_signs

REFERENCE_DATES = 13

# Each from the day {start} on, with the cause that monitoring has to name.
SHIFTS = {
    "prices rise by 30 %": ("price_shift", ["update {events} set amount = amount * 1.3 where {since}"]),
    "prices fall by 15 %": ("price_shift", ["update {events} set amount = amount * 0.85 where {since}"]),
    "bots view products": (
        "bot_traffic",
        [
            "insert into {events} by name "
            "select * replace ('bot-' || event_id as event_id, 'bot-' || (row_number() over () % 8) as user_id{row}) "
            "from {events} where event_type = 'view' and {since}"
        ],
    ),
    "views are not tracked any more": (
        "broken_tracker",
        ["delete from {events} where event_type = 'view' and {since} and hash(event_id) % 10 > 0"],
    ),
    "carts stop": ("broken_tracker", ["delete from {events} where event_type = 'cart' and {since}"]),
    "views lose their product": (
        "broken_tracker",
        ["update {events} set product_id = null where event_type = 'view' and {since} and hash(event_id) % 2 = 0"],
    ),
    "a third of the users leave": ("churn_shift", ["delete from {events} where {since} and hash(user_id) % 3 = 0"]),
}

LABELS_OF_LEAVERS = """
update marts.user_churn_labels set is_churned = true
where as_of_date = date '{start}' and hash(user_id) % 3 = 0
"""


def in_raw(name: str, start: date) -> list[str]:
    """Statements on raw.events: a full build follows."""
    since = f"event_time >= timestamp '{start}'"
    return [
        statement.format(events="raw.events", since=since, row=", -source_row as source_row")
        for statement in SHIFTS[name][1]
    ]


def in_marts(name: str, start: date) -> list[str]:
    """The same on what monitoring reads, without a build: quick."""
    since = f"event_date >= date '{start}'"
    found = [statement.format(events="intermediate.int_events", since=since, row="") for statement in SHIFTS[name][1]]
    return [*found, LABELS_OF_LEAVERS.format(start=start)] if SHIFTS[name][0] == "churn_shift" else found


def alerts_of(path: Path, day: date) -> list[Alert]:
    """Alerts of one date without a model: its signs, and its features against the labelled dates known by then."""
    with duckdb.connect(str(path), read_only=True) as con:
        frame = training_frame(con)
        before = [known for known in frame.dates() if known + timedelta(days=28) <= day][-REFERENCE_DATES:]
        drifts = feature_drift(frame.at(*before), scoring_frame(con, day).data, frame.features) if before else []
        return diagnose(day, vital_signs(con, day), drifts, None, [], {}, frame.features)
