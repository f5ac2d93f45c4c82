"""Out-of-time predictions of several dates, and what they measure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from lcm_ml.churn.baselines import baselines
from lcm_ml.churn.estimator import Recipe
from lcm_ml.churn.metrics import COMPARED, Measured, Outcome, Resamples, mean_over_dates, measure_outcome
from lcm_ml.churn.model import Fitted, fit_model
from lcm_ml.errors import LcmError
from lcm_ml.frames.frame import Frame
from lcm_ml.frames.splits import Split, no_labels, rolling_origin

Advance = Callable[[str, float], None]


@dataclass(frozen=True)
class Fold:
    """One date predicted by every model from what was known by then. `outcomes` has the baselines after the models."""

    split: Split
    fitted: dict[str, Fitted]
    outcomes: dict[str, Outcome]


@dataclass(frozen=True)
class FoldFigures:
    """What the models reached on one date."""

    as_of_date: date
    n_users: int
    n_churned: int
    models: dict[str, dict[str, Measured]]


@dataclass(frozen=True)
class Comparison:
    """A paired difference between two models, model less reference, mean over dates."""

    model: str
    reference: str
    metric: str
    difference: Measured
    n_dates: int


def predict_fold(frame: Frame, split: Split, models: Sequence[Recipe], seed: int, told: Callable[[str], None]) -> Fold:
    """Fit every model for a split and predict its test date."""
    test = frame.at(split.test)
    users, y = test.data.get_column("user_id").to_numpy(), test.labels()
    fitted: dict[str, Fitted] = {}
    outcomes: dict[str, Outcome] = {}
    for recipe in models:
        told(f"{recipe.name} for {split.test}")
        fitted[recipe.name] = fit_model(recipe, frame, split, seed)
        predicted = fitted[recipe.name].model.predict(test.data)
        outcomes[recipe.name] = Outcome(users, y, predicted, predicted)
    for name, found in baselines(frame.at(*split.fitted), test).items():
        outcomes[name] = Outcome(users, y, found.score, found.probability)
    return Fold(split, fitted, outcomes)


def predict_folds(
    frame: Frame, splits: Sequence[Split], models: Sequence[Recipe], seed: int, advance: Advance
) -> list[Fold]:
    """predict_fold for each split; `advance` is told the share done, 0 to 1."""
    done = 0

    def told(what: str) -> None:
        nonlocal done
        advance(what, done / (len(splits) * len(models)))
        done += 1

    return [predict_fold(frame, split, models, seed, told) for split in splits]


def draws_for(folds: Sequence[Fold], seed: int, resamples: int) -> Resamples:
    """Bootstrap draws of the users of all folds."""
    return Resamples([next(iter(fold.outcomes.values())).users for fold in folds], seed, resamples)


def measure_folds(folds: Sequence[Fold], draws: Resamples, advance: Advance) -> list[FoldFigures]:
    """All metrics of all models and dates, on the same draws of users."""
    figures = []
    for done, fold in enumerate(folds):
        advance(f"intervals for {fold.split.test}", done / len(folds))
        y = next(iter(fold.outcomes.values())).y
        models = {name: measure_outcome(outcome, draws) for name, outcome in fold.outcomes.items()}
        figures.append(FoldFigures(fold.split.test, len(y), int(y.sum()), models))
    return figures


def means(figures: Sequence[FoldFigures]) -> dict[str, dict[str, Measured]]:
    """Each model's metrics, mean over dates."""
    return {name: mean_over_dates([fold.models[name] for fold in figures]) for name in figures[0].models}


def compare(figures: Sequence[FoldFigures], models: Sequence[Recipe]) -> list[Comparison]:
    """Every model against every other and against the baselines, on the mean over dates."""
    mean = means(figures)
    return [
        Comparison(
            recipe.name, reference, metric, mean[recipe.name][metric].minus(mean[reference][metric]), len(figures)
        )
        for recipe in models
        for reference in mean
        if reference != recipe.name
        for metric in COMPARED
    ]


def both_classes(frame: Frame, day: date) -> bool:
    """Whether some users of the date churned and some stayed."""
    y = frame.at(day).labels()
    return bool(len(y)) and 0 < y.sum() < len(y)


def require_both_classes(frame: Frame, part: str, *dates: date) -> None:
    """Refuse a part of the data that has nothing to tell apart.

    Raises:
        LcmError: naming the part and its dates.
    """
    y = frame.at(*dates).labels()
    if 0 < y.sum() < len(y):
        return
    when = str(dates[0]) if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    did = "churned" if y.sum() else "stayed"
    raise LcmError(
        f"one class only: all {len(y):,} users of the {part} data ({when}) {did}",
        "load more users or more history, or change the var churn_horizon_days and run `dbt build`",
    )


def rolling_splits(frame: Frame, folds: int) -> list[Split]:
    """Splits for the last `folds` labelled dates that have both classes in every part.

    Raises:
        LcmError: when there is no label, or no date with enough before it.
    """
    dates = frame.dates()
    if not dates:
        raise LcmError(*no_labels(frame.horizon_days))
    possible = [
        split
        for split in rolling_origin(dates, frame.horizon_days, len(dates))
        if both_classes(frame, split.test) and both_classes(frame, split.validation)
    ]
    if not possible:
        raise LcmError(
            f"no date can be predicted from earlier ones: {len(dates)} labelled as_of_dates ({dates[0]} to "
            f"{dates[-1]}), and one fold needs three whose label windows of {frame.horizon_days} days do not "
            "overlap, with users who churned and users who stayed",
            "load more history, or lower the vars churn_horizon_days or as_of_step_days and run `dbt build`",
        )
    return possible[-folds:]
