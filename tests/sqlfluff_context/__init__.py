"""What dbt gives to a model's Jinja, for the SQL linter: enough for every model to render to the SQL it means."""

import re
from pathlib import Path

import yaml

SETTINGS = yaml.safe_load(Path("dbt_project.yml").read_text(encoding="utf-8"))["vars"]


def var(name, default=None):
    return SETTINGS.get(name, default)


# A name in `return(...)` cannot be written in Python.
globals()["return"] = lambda value: value
execute = True


class Adapter:
    def dispatch(self, name, _package):
        def call(*arguments):
            joined = ", ".join(str(argument) for argument in arguments)
            return {
                "add_days": "cast({0} + ({1}) * interval 1 day as date)",
                "days_between": "({1} - {0})",
                "shop_time": "{0}",
                "utc_time": "{0}",
                "row_hash": "hash({0})",
                "count_distinct_small": "coalesce(bit_count(bit_or(cast(1 as hugeint) << cast({0} as integer))), 0)",
                "median_by_group": "median({0})",
                "heaviest": "max(case when {0} is not null then {{'weight': {1}, 'value': {0}}} end).value",
            }[name].format(*(arguments if not isinstance(arguments[0], list) else [joined]))

        return call


adapter = Adapter()


def raw_rows(table):
    return f"select * from raw.{table}"


def raw_relation(table):
    return f"raw.{table}"


def clean_text(column):
    return f"nullif(trim({column}), '')"


clean_id = clean_text


def latest_per_key(key):
    return f"qualify row_number() over (partition by {key} order by loaded_at desc) = 1"


def current_loads():
    return ["one"]


pending_loads = current_loads


def is_reached_by_new_loads(_alias, _day="event_date"):
    return "true"


def kept_rows(table):
    return f"kept.{table}"


def pruned_before():
    return "date '2025-01-01'"


def event_row_hash():
    return "hash(event_id)"


def reached_as_of_dates(*_arguments):
    return []


def current_moment():
    return {"as_of": "date '2026-01-01'", "as_of_ts": "timestamp '2025-12-31 20:00:00'"}


def newest_load():
    return "'one'"


def load_list(loads):
    return ", ".join(f"'{load}'" for load in loads)


def source_mode():
    return "raw"


def pending_as_of_dates(*_arguments):
    return ["date '2026-01-01'"]


def judges_across_loads():
    return False


def first_date(_spine, rows_at, *more):
    return rows_at("date '2026-01-01'", *more)


def is_incremental():
    return False


def ref(name):
    return re.sub(r"\W", "_", name)


def source(schema, name):
    return f"{schema}.{name}"
