"""Features of users at as_of_dates with featuretools, in an environment of its own; prints seconds and values as JSON.

Three windows (28 days, 84 days, all time) of sums, means, extremes, counts, distinct values and times since, over the
events of a sample of users.

    python featuretools_features.py events.parquet 2025-06-01,2025-07-01
"""

import json
import sys
import time
import warnings

import featuretools as ft
import pandas as pd

warnings.filterwarnings("ignore")
AGGREGATIONS = ("count", "sum", "mean", "max", "min", "std", "num_unique", "time_since_last", "mode")
WINDOWS = ("28 days", "84 days", None)


def main() -> None:
    path, told = sys.argv[1:]
    events = pd.read_parquet(path)
    dates = [pd.Timestamp(day) for day in told.split(",")]
    users = sorted(events["user_id"].unique())
    start = time.perf_counter()
    known = ft.EntitySet("shop")
    known.add_dataframe(dataframe_name="events", dataframe=events, index="event_id", time_index="event_time")
    known.normalize_dataframe(base_dataframe_name="events", new_dataframe_name="users", index="user_id")
    cutoffs = pd.DataFrame([{"user_id": user, "time": day} for day in dates for user in users])
    values = 0
    for window in WINDOWS:
        features, _ = ft.dfs(
            entityset=known,
            target_dataframe_name="users",
            agg_primitives=list(AGGREGATIONS),
            trans_primitives=[],
            cutoff_time=cutoffs,
            training_window=window,
            include_cutoff_time=False,
            cutoff_time_in_index=True,
            n_jobs=1,
        )
        values += features.size
    print(json.dumps({"seconds": time.perf_counter() - start, "values": values, "users": len(users)}))


if __name__ == "__main__":
    main()
