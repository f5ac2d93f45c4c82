"""`fit`: train, choose on validation dates, measure on the test date, refit the champion for scoring."""

from collections.abc import Sequence
from dataclasses import dataclass

from lcm_ml.churn.encoding import learn_encoding
from lcm_ml.churn.estimator import DEFAULT_MODELS, Recipe
from lcm_ml.churn.evaluation import (
    Advance,
    Comparison,
    Fold,
    FoldFigures,
    both_classes,
    compare,
    draws_for,
    means,
    measure_folds,
    predict_folds,
    require_both_classes,
)
from lcm_ml.churn.metrics import Measured, Resamples
from lcm_ml.churn.model import ChurnModel, refit
from lcm_ml.churn.sentinel import refuse_leaks
from lcm_ml.frames.frame import Frame
from lcm_ml.frames.splits import Split, observed_before, rolling_origin, split_by_date


@dataclass(frozen=True)
class FitOptions:
    """How to fit.

    Attributes:
        models: names of the estimators.
        seed: same seed and data, same models.
        folds: validation dates that choose the champion, and that a search measures on.
        resamples: of the bootstrap.
        tune: trials of the search for settings, per model; 0 for none.
        accept_changed_features: past dates may have other features than at the last fit.
    """

    models: tuple[str, ...] = DEFAULT_MODELS
    seed: int = 0
    folds: int = 4
    resamples: int = 500
    tune: int = 0
    accept_changed_features: bool = False


@dataclass(frozen=True)
class FitResult:
    """What a fit found.

    Attributes:
        split: dates of the evaluated models.
        validation: figures of the dates that chose the champion, oldest first; empty where there were too few dates.
        test: the test date, its predictions and models.
        test_figures: what they reached.
        latest: figures of the last labelled dates, the test date among them.
        comparisons: paired, over `latest`.
        champion: name of the model that serves.
        served: the champion, refitted on all labelled dates.
        notes: what a reader should know.
        draws: of the bootstrap, for more figures on the same users.
    """

    split: Split
    validation: list[FoldFigures]
    test: Fold
    test_figures: FoldFigures
    latest: list[FoldFigures]
    comparisons: list[Comparison]
    champion: str
    served: ChurnModel
    notes: list[str]
    draws: Resamples

    @property
    def evaluated(self) -> dict[str, ChurnModel]:
        """The models that predicted the test date."""
        return {name: fitted.model for name, fitted in self.test.fitted.items()}

    def latest_means(self) -> dict[str, dict[str, Measured]]:
        """Mean over the last labelled dates."""
        return means(self.latest)


def fit_models(frame: Frame, models: Sequence[Recipe], options: FitOptions, advance: Advance) -> FitResult:
    """Fit, choose, measure, refit. The same frame and options give the same result.

    Args:
        frame: labelled rows.
        models: what to fit.
        options: seed, folds, resamples.
        advance: told what is under way and the share done, 0 to 1.

    Raises:
        LcmError: with too few dates, one class only, or a feature that tells the label.
    """
    horizon, dates = frame.horizon_days, frame.dates()
    split = split_by_date(dates, horizon)
    require_both_classes(frame, "training", *split.train)
    require_both_classes(frame, "validation", split.validation)
    require_both_classes(frame, "test", split.test)
    known = frame.at(*split.fitted)
    encoding, constant = learn_encoding(known.data, known.features)
    refuse_leaks(encoding, encoding.matrix(known.data), known.labels())
    rolling = choosing_splits(frame, options.folds)
    folds = predict_folds(
        frame, [*rolling, split], models, options.seed, lambda what, share: advance(what, 0.75 * share)
    )
    draws = draws_for(folds, options.seed, options.resamples)
    figures = measure_folds(folds, draws, lambda what, share: advance(what, 0.75 + 0.15 * share))
    validation, latest = figures[:-1], figures[-max(options.folds, 1) :]
    champion = choose_champion(validation, folds[-1], [recipe.name for recipe in models])
    advance(f"{champion} on all dates", 0.9)
    served = refit(folds[-1].fitted[champion].model, frame)
    notes = []
    if constant:
        shown = ", ".join(constant[:5]) + (", ..." if len(constant) > 5 else "")
        notes.append(f"{len(constant)} constant columns dropped: {shown}")
    if not validation:
        notes.append(
            "too few dates for a rolling choice: the champion has the best log loss on the one validation date, "
            "which also chose its settings"
        )
    return FitResult(
        split, validation, folds[-1], figures[-1], latest, compare(latest, models), champion, served, notes, draws
    )


def choosing_splits(frame: Frame, folds: int) -> list[Split]:
    """The last `folds` splits whose outcomes were known before the test date: they choose settings and champion.

    Raises:
        LcmError: with too few dates.
    """
    horizon, dates = frame.horizon_days, frame.dates()
    test = split_by_date(dates, horizon).test
    return [
        fold
        for fold in rolling_origin(observed_before(dates, test, horizon), horizon, folds)
        if both_classes(frame, fold.test) and both_classes(frame, fold.validation)
    ]


def choose_champion(validation: Sequence[FoldFigures], test: Fold, models: Sequence[str]) -> str:
    """The lowest mean log loss over the validation dates, each predicted by models that had not seen it.

    Where there are none, the log loss on the one validation date of the models that only stopped early on it. The
    outcomes of the test date are not read.
    """
    if not validation:
        return min(models, key=lambda name: test.fitted[name].validation_log_loss)
    mean = means(validation)
    return min(models, key=lambda name: mean[name]["log_loss"].value)
