"""Search for an estimator's settings over rolling validation dates (Akiba and others 2019, Optuna; TPE).

The test date is not read. Each trial is handed out as soon as it is known, and trials handed in are not run again: a
search that was stopped goes on where it was.
"""

import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lcm_ml.churn.estimator import Recipe
from lcm_ml.churn.metrics import mean_log_loss
from lcm_ml.churn.model import fit_model
from lcm_ml.errors import LcmError, UsageError
from lcm_ml.frames.frame import Frame
from lcm_ml.frames.splits import Split

STARTUP_TRIALS = 8
"""Trials before the sampler leaves chance, and before a bad trial is given up after its first dates."""


@dataclass(frozen=True)
class Trial:
    """What one set of settings reached. `status`: complete, pruned or failed."""

    number: int
    settings: dict[str, Any]
    fold_log_losses: tuple[float, ...]
    status: str
    seconds: float

    @property
    def log_loss(self) -> float | None:
        """The mean over the dates; None unless the trial is complete."""
        return float(np.mean(self.fold_log_losses)) if self.status == "complete" else None


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The complete trial with the lowest log loss."""
    complete = [trial for trial in trials if trial.log_loss is not None]
    return min(complete, key=lambda trial: trial.log_loss or 0.0, default=None)


def search(
    recipe: Recipe,
    frame: Frame,
    folds: Sequence[Split],
    seed: int,
    trials: int,
    earlier: Sequence[Trial],
    keep: Callable[[Trial], None],
    advance: Callable[[str, float], None],
) -> Recipe:
    """Try settings until the study has `trials` of them. The first trial has the usual settings.

    Args:
        recipe: what to search for.
        frame: labelled rows.
        folds: splits whose test dates measure a trial.
        seed: of the sampler and the fits.
        trials: in all, with the earlier ones.
        earlier: of this study, from runs before.
        keep: given each trial when it is over.
        advance: told the trial under way and the share done.

    Returns:
        The recipe with the best settings.

    Raises:
        UsageError: for an estimator that has nothing to search.
        LcmError: when optuna is missing, there are no dates to measure on, or every trial failed.
    """
    space = recipe.make(seed).search_space()
    if not space:
        raise UsageError(f"{recipe.name} has no settings to search", "leave it out of --tune, or tune its members")
    if not folds:
        raise LcmError(
            "too few labelled dates before the test date to search for settings",
            "load more history, or leave out --tune",
        )
    optuna = _optuna()
    distributions = {
        name: (
            optuna.distributions.IntDistribution(int(values.low), int(values.high), log=values.log)
            if values.integer
            else optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)
        )
        for name, values in space.items()
    }
    # Seeded by the trials behind it too, so that going on does not draw the first ones again.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=seed + 1000 * len(earlier), n_startup_trials=STARTUP_TRIALS, multivariate=True
        )
    study = optuna.create_study(
        sampler=sampler, pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=0)
    )
    done = list(earlier)
    for trial in earlier:
        if trial.settings and trial.status != "failed":
            study.add_trial(_as_optuna(optuna, trial, distributions))
    for number in range(len(earlier), trials):
        best = best_of(done)
        shown = f", best log loss {best.log_loss:.4f}" if best else ""
        advance(
            f"{recipe.name}, trial {number + 1} of {trials}{shown}", (number - len(earlier)) / (trials - len(earlier))
        )
        finished = _run(recipe, frame, folds, seed, number, study if number else None, distributions)
        done.append(finished)
        keep(finished)
    best = best_of(done)
    if best is None:
        raise LcmError(
            f"none of {len(done)} trials of {recipe.name} went through", "see ml.tuning_trials, or leave out --tune"
        )
    return replace(recipe, settings={**recipe.settings, **best.settings})


def _run(
    recipe: Recipe,
    frame: Frame,
    folds: Sequence[Split],
    seed: int,
    number: int,
    study: Any,
    distributions: dict[str, Any],
) -> Trial:
    """One trial; without a study that of the usual settings."""
    started = time.monotonic()
    asked = study.ask(distributions) if study else None
    settings = dict(asked.params) if asked else {}
    candidate = replace(recipe, settings={**recipe.settings, **settings})
    losses: list[float] = []
    status = "complete"
    try:
        for step, split in enumerate(folds):
            test = frame.at(split.test)
            predicted = fit_model(candidate, frame, split, seed).model.predict(test.data)
            losses.append(mean_log_loss(test.labels(), predicted))
            if asked:
                asked.report(losses[-1], step)
                if asked.should_prune() and step < len(folds) - 1:
                    status = "pruned"
                    break
    except (ValueError, FloatingPointError):
        # Settings that an estimator refuses are a result of the search, not its end.
        status = "failed"
    if study:
        from optuna.trial import TrialState

        state = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}[status]
        study.tell(asked, float(np.mean(losses)) if status == "complete" else None, state=state)
    return Trial(number, settings, tuple(losses), status, time.monotonic() - started)


def _as_optuna(optuna: Any, trial: Trial, distributions: dict[str, Any]) -> Any:
    complete = trial.status == "complete"
    return optuna.trial.create_trial(
        params=trial.settings,
        distributions=distributions,
        value=trial.log_loss,
        intermediate_values=dict(enumerate(trial.fold_log_losses)),
        state=optuna.trial.TrialState.COMPLETE if complete else optuna.trial.TrialState.PRUNED,
    )


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise LcmError("--tune needs optuna, which is not installed", "pip install 'lcm-ml[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def trial_row(study: str, run_id: str, model: str, trial: Trial, is_best: bool) -> dict[str, Any]:
    """A trial as a row of ml.tuning_trials."""
    return {
        "study": study,
        "trial": trial.number,
        "run_id": run_id,
        "model_name": model,
        "settings": json.dumps(trial.settings, sort_keys=True),
        "log_loss": trial.log_loss,
        "fold_log_losses": json.dumps(trial.fold_log_losses),
        "status": trial.status,
        "seconds": trial.seconds,
        "is_best": is_best,
    }


def trial_of(row: dict[str, Any]) -> Trial:
    """The inverse of trial_row."""
    losses = tuple(float(loss) for loss in json.loads(row["fold_log_losses"]))
    return Trial(row["trial"], json.loads(row["settings"]), losses, row["status"], row["seconds"])
