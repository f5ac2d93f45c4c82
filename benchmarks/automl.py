"""The champion beside an AutoML run (FLAML) on the same frame, the same encoded matrix and the same dates.

FLAML searches LightGBM, XGBoost and forests twice: for the log loss on the validation date, as lcm does, and for that
of five folds of users over all dates before the test date, which has ten times the outcomes to choose by. It fits its
best on training and validation dates and predicts the test date. Ends with 1 when the champion's AUC is below the
better one's less 0.002.

    .venv/bin/pip install -e '.[bench]' --no-build-isolation
    LCM_WAREHOUSE=warehouse/lcm.duckdb .venv/bin/python benchmarks/automl.py [--seconds 150] [--seed 0]

Without LCM_WAREHOUSE The Complete Journey is loaded, built and fitted in a warehouse that is thrown away.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ceiling import lcm

from lcm_ml.churn.encoding import learn_encoding
from lcm_ml.churn.metrics import Outcome, Resamples, figure, measure_outcome
from lcm_ml.frames.frame import training_frame
from lcm_ml.frames.splits import split_for
from lcm_ml.registry.predictions import champion_test
from lcm_ml.warehouse.connection import connect

AUC_BAR = 0.002
RESAMPLES = 500
SEARCHED = ["lgbm", "xgboost", "xgb_limitdepth", "rf", "extra_tree"]  # lrl1 takes no missing values
SHOWN = {"auc": "AUC", "average_precision": "average precision", "log_loss": "log loss"}
HELD_OUT = ("the validation date", "five folds of users")
RESULTS = Path(__file__).parent / "results" / "automl.json"


def search(frame, split, held_out: str, seconds: int, seed: int):
    """FLAML after its search, and what it says of the test date."""
    try:
        from flaml import AutoML
    except ImportError as error:
        sys.exit(f"{error}; install the extra: pip install 'lcm-ml[bench]'")
    known, train, validation, test = (
        frame.at(*days) for days in (split.fitted, split.train, (split.validation,), (split.test,))
    )
    encoding, _ = learn_encoding(known.data, known.features)
    rows = {
        "the validation date": {
            "X_train": encoding.matrix(train.data),
            "y_train": train.labels(),
            "X_val": encoding.matrix(validation.data),
            "y_val": validation.labels(),
            "eval_method": "holdout",
        },
        "five folds of users": {
            "X_train": encoding.matrix(known.data),
            "y_train": known.labels(),
            "eval_method": "cv",
            "n_splits": 5,
            "split_type": "group",
            "groups": known.data.get_column("user_id").to_numpy(),
        },
    }[held_out]
    automl = AutoML()
    automl.fit(
        **rows,
        task="classification",
        metric="log_loss",
        estimator_list=SEARCHED,
        time_budget=seconds,
        seed=seed,
        n_jobs=os.cpu_count(),
        verbose=0,
    )
    return automl, np.asarray(automl.predict_proba(encoding.matrix(test.data))[:, 1], dtype=np.float64)


def run(seconds: int, seed: int) -> bool:
    """Compare on the warehouse of LCM_WAREHOUSE; whether the champion reaches the bar."""
    with connect(read_only=True) as con:
        frame, tested = training_frame(con), champion_test(con)
    split = split_for(frame.dates(), tested.as_of_date, frame.horizon_days)
    day = frame.at(split.test)
    if day.data.get_column("user_id").to_list() != tested.outcome.users.tolist():
        sys.exit("the marts changed since the fit: run `lcm-ml fit` first")
    draws = Resamples([tested.outcome.users], seed, RESAMPLES)
    champion = measure_outcome(tested.outcome, draws)
    print(f"{split.test}: {len(day.labels()):,} users, {int(day.labels().sum()):,} churned")
    print(f"  {tested.model_version}")
    show(champion, ".4f")
    rivals = []
    for held_out in HELD_OUT:
        started, busy = time.monotonic(), time.process_time()
        automl, probability = search(frame, split, held_out, seconds, seed)
        took, busy = time.monotonic() - started, time.process_time() - busy
        rival = measure_outcome(Outcome(tested.outcome.users, tested.outcome.y, probability, probability), draws)
        less = {metric: champion[metric].minus(rival[metric]) for metric in SHOWN}
        print(
            f"  FLAML, chosen on {held_out} of {', '.join(SEARCHED)} in {took:.0f} s ({busy:.0f} s of processor time, "
            f"{os.cpu_count()} cores): {automl.best_estimator} {automl.best_config}"
        )
        show(rival, ".4f")
        print("    champion less this, the same users drawn for both")
        show(less, "+.4f")
        rivals.append(
            {
                "chosen_on": held_out,
                "seconds": took,
                "processor_seconds": busy,
                "best_estimator": automl.best_estimator,
                "best_config": automl.best_config,
                "log_losses": automl.best_loss_per_estimator,
                "figures": {metric: figure(rival[metric]) for metric in SHOWN},
                "champion_less_this": {metric: figure(less[metric]) for metric in SHOWN},
            }
        )
    reached = all(rival["champion_less_this"]["auc"]["value"] >= -AUC_BAR for rival in rivals)
    print(f"  bar: AUC at least FLAML's less {AUC_BAR}: {'reached' if reached else 'missed'}")
    document = {
        "test_date": split.test,
        "seed": seed,
        "model_version": tested.model_version,
        "figures": {metric: figure(champion[metric]) for metric in SHOWN},
        "rivals": rivals,
        "is_reached": reached,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=2, default=str), encoding="utf-8")
    return reached


def show(measured: dict, digits: str) -> None:
    for metric, title in SHOWN.items():
        found = figure(measured[metric])
        print(f"    {title:<18} {found['value']:{digits}} ({found['ci_low']:{digits}} to {found['ci_high']:{digits}})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=150, help="of each search")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if os.environ.get("LCM_WAREHOUSE"):
        sys.exit(not run(options.seconds, options.seed))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LCM_WAREHOUSE"] = str(Path(folder) / "lcm.duckdb")
        lcm("load", "complete-journey")
        lcm("run")
        sys.exit(not run(options.seconds, options.seed))


if __name__ == "__main__":
    main()
