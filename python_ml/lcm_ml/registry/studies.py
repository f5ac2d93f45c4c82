"""Searches for settings, kept in ml.tuning_trials: a trial is there as soon as it is over."""

from collections.abc import Callable, Sequence

import polars as pl

from lcm_ml.churn.estimator import Recipe
from lcm_ml.churn.training import FitOptions, choosing_splits
from lcm_ml.churn.tuning import Trial, best_of, search, trial_of, trial_row
from lcm_ml.frames.frame import Frame
from lcm_ml.registry.runs import Run
from lcm_ml.warehouse import writer
from lcm_ml.warehouse.connection import Notify, connect, rows, transaction, writer_lock
from lcm_ml.warehouse.contracts import tables


def tuned(
    models: Sequence[Recipe],
    frame: Frame,
    options: FitOptions,
    run: Run,
    advance: Callable[[str, float], None],
    notify: Notify,
) -> tuple[Recipe, ...]:
    """Search `options.tune` trials for each recipe; one with nothing to search stays as it is.

    The same model, data, dates and seed are one study: its trials are counted whatever run they come from.

    Raises:
        UsageError: when none of the models has anything to search.
        LcmError: from the search, or when the warehouse cannot be written.
    """
    folds = choosing_splits(frame, options.folds)
    found = []
    several = len(models) > 1
    for done, recipe in enumerate(models):
        if several and not recipe.make(options.seed).search_space():
            found.append(recipe)
            continue
        study = f"{recipe.name}-{str(run.data_fingerprint)[:12]}-{options.folds}-{options.seed}"
        trials = _earlier(study, notify)

        def keep(trial: Trial, study: str = study, recipe: Recipe = recipe, trials: list[Trial] = trials) -> None:
            before = best_of(trials)
            trials.append(trial)
            best = best_of(trials)
            written = {trial.number: trial} | ({before.number: before} if before and before is not best else {})
            _write(study, run, recipe.name, list(written.values()), best, notify)

        def told(what: str, share: float, done: int = done) -> None:
            advance(what, (done + share) / len(models))

        found.append(search(recipe, frame, folds, options.seed, options.tune, tuple(trials), keep, told))
    return tuple(found)


def _earlier(study: str, notify: Notify) -> list[Trial]:
    with connect(notify=notify) as con:
        writer.ensure(con, {"tuning_trials": tables("ml")["tuning_trials"]})
        found = rows(con, "select * from ml.tuning_trials where study = ? order by trial", [study])
    return [trial_of(row) for row in found]


def _write(study: str, run: Run, model: str, trials: list[Trial], best: Trial | None, notify: Notify) -> None:
    frame = pl.DataFrame(
        [trial_row(study, run.run_id, model, trial, trial is best) for trial in trials],
        schema_overrides={"log_loss": pl.Float64},
    )
    with writer_lock(f"lcm-ml {run.command}", notify), connect(notify=notify) as con, transaction(con):
        writer.write(con, tables("ml")["tuning_trials"], frame)
