"""Scoring and fitting with XGBoost, beside the bare library on the same rows, trees and matrix."""

import multiprocessing
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from speed.measure import Measure, in_turns, peak_bytes, seconds
from speed.shop import Shop, connect

SCORED = {1_000_000: 200_000, 10_000_000: 1_000_000, 100_000_000: 4_000_000}
FITTED = {1_000_000: 200_000, 10_000_000: 3_000_000, 100_000_000: 3_000_000}
TREES = 50


def measure_scoring(shop: Shop, rounds: int) -> list[Measure]:
    path = shop.copy(shop.history)
    con = connect(path)
    day = _multiply(con, SCORED.get(shop.events, shop.events // 5))
    model = _model(con)
    con.close()
    os.environ["LCM_WAREHOUSE"] = str(path)

    from lcm_ml.churn.scoring import Bands, score_rows
    from lcm_ml.frames.frame import scoring_frame
    from lcm_ml.warehouse.connection import connect as open_warehouse

    users = 0

    def ours() -> float:
        nonlocal users
        with open_warehouse() as con:
            start = time.perf_counter()
            frame = scoring_frame(con, day)
            rows = score_rows(
                model, "v", frame, day, Bands(0.5, 0.5, 0.2), "run", datetime.now(UTC).replace(tzinfo=None)
            )
            con.register("rows", rows)
            con.execute("create or replace table ml.bench_scores as select * from rows")
            users = rows.height
            return time.perf_counter() - start

    names = [name.split("=", 1) for name in model.encoding.names]
    columns = ", ".join(
        f"cast({name[0]} as float) as f{at}"
        if len(name) == 1
        else f"cast({name[0]} is not distinct from '{name[1]}' as float) as f{at}"
        for at, name in enumerate(names)
    )

    def bare() -> float:
        import pyarrow as pa

        with open_warehouse() as con:
            start = time.perf_counter()
            rows = con.sql(
                f"select user_id, as_of_date, {columns} from marts.user_features "
                f"where as_of_date = date '{day}' and is_active_buyer"
            ).to_arrow_table()
            features = rows.drop_columns(["user_id", "as_of_date"])
            p = model.estimator._booster.inplace_predict(_matrix(features))
            written = pa.table({"user_id": rows["user_id"], "as_of_date": rows["as_of_date"], "churn_probability": p})
            con.register("written", written)
            con.execute("create or replace table ml.bench_bare as select * from written")
            return time.perf_counter() - start

    mine, theirs = in_turns(rounds, ours, bare)
    shutil.rmtree(path.parent)
    what = f"from marts to a table of scores, {users:,} users, beside an Arrow read, inplace_predict and an Arrow write"
    return [Measure("score", what, 1.3, mine, theirs)]


def measure_fitting(shop: Shop, rounds: int) -> list[Measure]:
    path = shop.copy(shop.history)
    con = connect(path)
    _multiply_labelled(con, FITTED.get(shop.events, shop.events // 5))
    con.close()
    rounds_of = [_in_a_process(_fit, path, step) for _ in range(rounds) for step in ("ours", "bare")]
    ours, bare = rounds_of[::2], rounds_of[1::2]
    shutil.rmtree(path.parent)
    rows, size = ours[0]["rows"], ours[0]["matrix"]
    what = f"{rows:,} rows, {TREES} trees"
    return [
        Measure("fit", f"the estimator's fit on a matrix, {what}, beside xgboost.train on the same matrix", 1.25,
                [one["seconds"] for one in ours], [one["seconds"] for one in bare]),
        Measure("fit, memory", f"peak memory from marts to a fitted model, {what}, beside the float32 matrix", 2,
                [one["peak"] for one in ours], [size] * rounds, note="less what Python and its libraries take before"),
    ]  # fmt: skip


def _multiply(con: Any, rows: int) -> Any:
    """Enough users at the last date, as copies with other ids."""
    day = con.execute("select max(as_of_date) from marts.as_of_dates where is_scoring_date").fetchone()[0]
    have = con.execute(
        "select count(*) from marts.user_features where as_of_date = ? and is_active_buyer", [day]
    ).fetchone()[0]
    con.execute(
        "insert into marts.user_features select f.* replace (f.user_id || '-' || r.i as user_id) "
        f"from marts.user_features as f, range(1, {max(2, round(rows / have))}) as r (i) where f.as_of_date = ?",
        [day],
    )
    return day


def _multiply_labelled(con: Any, rows: int) -> None:
    """Enough users with labels, as copies with other ids, and no limit to the rows of a training."""
    have = con.execute("select count(*) from marts.user_churn_labels").fetchone()[0]
    for table in ("user_features", "user_churn_labels"):
        con.execute(
            f"insert into marts.{table} select t.* replace (t.user_id || '-' || r.i as user_id) "
            f"from marts.{table} as t, range(1, {max(1, round(rows / have))}) as r (i)"
        )
    con.execute("update meta.settings set value = 'null' where name = 'max_training_rows'")


def _model(con: Any) -> Any:
    """A model of 300 trees, as `lcm-ml fit` makes one."""
    from lcm_ml.churn.boosting import Boosting
    from lcm_ml.churn.calibration import choose_calibration
    from lcm_ml.churn.encoding import learn_encoding
    from lcm_ml.churn.model import ChurnModel
    from lcm_ml.frames.frame import make_frame

    labelled = con.sql(
        "select f.*, l.is_churned from marts.user_features as f join marts.user_churn_labels as l "
        "using (user_id, as_of_date) using sample 50000 rows (reservoir, 1)"
    ).pl()
    frame = make_frame(labelled, 28, ["as_of_month", "favourite_category", "favourite_brand"])
    encoding, _ = learn_encoding(frame.data, frame.features)
    estimator = Boosting(0, {"n_trees": 300})
    x = encoding.matrix(frame.data)
    estimator.fit(x, frame.labels())
    calibration = choose_calibration(estimator.predict_proba(x), frame.labels(), 0)
    return ChurnModel(encoding, estimator, calibration, tuple(frame.dates()), 28)


def _matrix(features: Any) -> Any:
    import numpy as np

    matrix = np.empty((features.num_rows, features.num_columns), dtype=np.float32)
    for start in range(0, features.num_rows, 2**15):
        part = features.slice(start, 2**15)
        for at in range(features.num_columns):
            matrix[start : start + 2**15, at] = part.column(at).to_numpy()
    return matrix


def _fit(path: Path, step: str) -> dict[str, float]:
    os.environ["LCM_WAREHOUSE"] = str(path)
    import numpy as np
    import xgboost as xgb

    from lcm_ml.churn.boosting import BOOSTING, Boosting
    from lcm_ml.churn.encoding import learn_encoding
    from lcm_ml.frames.frame import training_frame
    from lcm_ml.warehouse.connection import connect as open_warehouse

    before = peak_bytes()
    with open_warehouse(read_only=True) as con:
        frame = training_frame(con)
    encoding, _ = learn_encoding(frame.data, frame.features)
    x, y = encoding.matrix(frame.data), frame.labels()
    rows = frame.data.height
    del frame
    if step == "ours":
        taken = seconds(lambda: Boosting(0, {"n_trees": TREES}).fit(x, y))
    else:
        parameters = {
            **BOOSTING,
            "objective": "binary:logistic",
            "eval_metric": "logloss",
            "tree_method": "hist",
            "seed": 0,
        }
        taken = seconds(lambda: xgb.train(parameters, xgb.QuantileDMatrix(x, y), TREES))
    peak = peak_bytes() - before
    return {"seconds": taken, "peak": peak, "matrix": float(np.prod(x.shape) * 4), "rows": rows}


def _in_a_process(work: Any, *arguments: Any) -> Any:
    """Peak memory is a process's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)
