"""Smaller models in place of a fitted one: fewer trees, or a shallow student of its probabilities.

The validation date chooses the size: the smallest that, fitted without it, costs at most TOLERANCE of log loss there,
both by what happened and by what the whole model expects. By one date's outcomes alone a model that is plainly worse
can be lucky: on The Complete Journey such a difference has a standard error of up to 0.001. The test date is not read.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from lcm_ml.churn.boosting import Boosting
from lcm_ml.churn.calibration import choose_calibration
from lcm_ml.churn.estimator import Estimator, FloatArray
from lcm_ml.churn.metrics import mean_log_loss
from lcm_ml.churn.model import ChurnModel, refit
from lcm_ml.frames.frame import Frame
from lcm_ml.frames.splits import Split

TOLERANCE = 0.001
SHARES = (1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8)
SIZES = {
    "xgboost": "n_trees",
    "random_forest": "n_trees",
    "gradient_boosting": "max_iter",
    "decision_tree": "max_depth",
}
"""The setting that says how large an estimator's trees are together; others have nothing to prune."""

STUDENT = {"learning_rate": 0.2, "min_child_weight": 1.0, "subsample": 1.0, "colsample_bynode": 1.0}
"""All rows and columns in each tree: what is learnt has no noise that sampling would guard against."""
STUDENT_SIZES = ((2, 10), (2, 20), (2, 40), (3, 40), (3, 80), (4, 80))
"""Depth and number of trees, the smallest first."""


@dataclass(frozen=True)
class Pair:
    """A model as it serves and as it was evaluated, before the test date; both are one where nothing was refitted."""

    served: ChurnModel
    evaluated: ChurnModel


@dataclass(frozen=True)
class Compact:
    """A smaller model, and how its size was chosen.

    Attributes:
        pair: fitted on the same dates as the whole model.
        size: in words.
        validation_log_loss: of the chosen size.
        whole_log_loss: of the whole model on the same date.
        expected_cost: in log loss there, if the whole model's probabilities were right: the mean Kullback-Leibler
            divergence from them.
    """

    pair: Pair
    size: str
    validation_log_loss: float
    whole_log_loss: float
    expected_cost: float

    @property
    def cost(self) -> float:
        """The larger of the two costs in log loss, as it happened and as expected."""
        return max(self.validation_log_loss - self.whole_log_loss, self.expected_cost)


@dataclass(frozen=True)
class _Candidate:
    estimator: Estimator
    size: str


def pruned(whole: Pair, frame: Frame, split: Split) -> Compact | None:
    """The same estimator with fewer trees, for an ensemble those of its members.

    None where it has no trees, or too few to spare any.

    Boosting with fewer rounds is the first rounds of the whole one, since the seed is the same.
    """
    estimator = whole.evaluated.estimator

    shrunk = [_shrunk(estimator.name, estimator.settings, share) for share in SHARES]
    smaller = [settings for settings in shrunk if settings and settings != estimator.settings]
    if not smaller:
        return None
    candidates = (
        _Candidate(type(estimator)(estimator.seed, settings), _told(estimator.name, settings)) for settings in smaller
    )
    found = _smallest(whole, frame, split, candidates, taught=False)
    return found if found.cost <= TOLERANCE else None


def student(whole: Pair, frame: Frame, split: Split) -> Compact:
    """Shallow boosted trees fitted to the probabilities that the whole model gives its own training rows.

    Bucila, Caruana and Niculescu-Mizil 2006, "Model Compression"; Hinton, Vinyals and Dean 2015, "Distilling the
    Knowledge in a Neural Network".
    """
    seed = whole.evaluated.estimator.seed
    candidates = (
        _Candidate(Boosting(seed, {**STUDENT, "max_depth": depth, "n_trees": trees}), f"{trees} trees of depth {depth}")
        for depth, trees in STUDENT_SIZES
    )
    return _smallest(whole, frame, split, candidates, taught=True)


def _smallest(whole: Pair, frame: Frame, split: Split, candidates: Iterable[_Candidate], *, taught: bool) -> Compact:
    """The first candidate that is near enough on the validation date, else the nearest of them.

    Args:
        whole: what is to be replaced.
        frame: labelled rows.
        split: its training dates and its validation date.
        candidates: the smallest first.
        taught: whether they learn the whole model's probabilities, in place of what happened.
    """
    train, validation = frame.at(*split.train), frame.at(split.validation)
    known = refit(whole.evaluated, train)
    x, x_validation = known.encoding.matrix(train.data), known.encoding.matrix(validation.data)
    y, labels = validation.labels(), _labels(known, train, taught)
    expected = known.predict_encoded(x_validation)
    best: Compact | None = None
    for candidate in candidates:
        candidate.estimator.fit(x, labels)
        predicted = candidate.estimator.predict_proba(x_validation)
        probability = predicted if taught else known.calibration.apply(predicted)
        losses = mean_log_loss(y, probability), mean_log_loss(y, expected)
        found = Compact(whole, candidate.size, *losses, _expected_cost(expected, probability))
        if best is None or found.cost < best.cost:
            best, chosen = found, candidate.estimator
            calibration = choose_calibration(predicted, y, chosen.seed)
        if found.cost <= TOLERANCE:
            break
    assert best is not None

    def fitted(model: ChurnModel) -> ChurnModel:
        estimator = type(chosen)(chosen.seed, chosen.settings)
        rows = frame.at(*model.trained_on)
        estimator.fit(model.encoding.matrix(rows.data), _labels(model, rows, taught))
        return replace(model, estimator=estimator, calibration=calibration)

    evaluated = fitted(whole.evaluated)
    served = evaluated if whole.served is whole.evaluated else fitted(whole.served)
    return replace(best, pair=Pair(served, evaluated))


def _labels(model: ChurnModel, rows: Frame, taught: bool) -> FloatArray:
    return model.predict(rows.data) if taught else rows.labels()


def _expected_cost(expected: FloatArray, probability: FloatArray) -> float:
    """What predicting `probability` costs in log loss where `expected` is right."""
    return mean_log_loss(expected, probability) - mean_log_loss(expected, expected)


def _shrunk(name: str, settings: dict[str, Any], share: float) -> dict[str, Any] | None:
    """Settings with this share of the trees; None where there are none."""
    if name == "ensemble":
        members = {
            member: _shrunk(member, settings["settings"].get(member, {}), share) for member in settings["members"]
        }
        if not any(members.values()):
            return None
        smaller = {member: found for member, found in members.items() if found is not None}
        return {**settings, "settings": {**settings["settings"], **smaller}}
    size = SIZES.get(name)
    return {**settings, size: max(1, round(share * settings[size]))} if size and size in settings else None


def _told(name: str, settings: dict[str, Any]) -> str:
    if name == "ensemble":
        own = settings["settings"]
        return ", ".join(f"{member} {_told(member, own[member])}" for member in settings["members"] if member in SIZES)
    return f"{SIZES[name]} {settings[SIZES[name]]}"
