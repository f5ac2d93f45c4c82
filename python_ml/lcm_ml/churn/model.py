"""A churn model: encoding, estimator and calibration as one, from a frame to probabilities."""

from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import polars as pl

from lcm_ml.churn.calibration import Calibration, choose_calibration
from lcm_ml.churn.encoding import Encoding, FloatMatrix, learn_encoding
from lcm_ml.churn.estimator import Estimator, FloatArray, Recipe
from lcm_ml.churn.metrics import mean_log_loss
from lcm_ml.frames.frame import Frame
from lcm_ml.frames.splits import Split

ROWS_AT_ONCE = 250_000
"""Rows that are encoded and predicted at a time."""


@dataclass(frozen=True)
class ChurnModel:
    """A fitted model.

    Attributes:
        encoding: features to matrix.
        estimator: fitted on `trained_on`.
        calibration: learnt from predictions of a date that the estimator had not seen.
        trained_on: as_of_dates, oldest first.
        horizon_days: its label is no purchase in this many days.
        constant: features that were dropped because they do not vary.
    """

    encoding: Encoding
    estimator: Estimator
    calibration: Calibration
    trained_on: tuple[date, ...]
    horizon_days: int
    constant: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The estimator's name."""
        return self.estimator.name

    def predict(self, data: pl.DataFrame) -> FloatArray:
        """Calibrated churn probabilities, shape (rows,).

        Raises:
            LcmError: when the features are not those of training.
        """
        starts = range(0, max(data.height, 1), ROWS_AT_ONCE)
        return np.concatenate(
            [self.predict_encoded(self.encoding.matrix(data.slice(start, ROWS_AT_ONCE))) for start in starts]
        )

    def predict_encoded(self, x: FloatMatrix) -> FloatArray:
        """Calibrated churn probabilities of rows that are encoded already."""
        return self.calibration.apply(self.estimator.predict_proba(x))


@dataclass(frozen=True)
class Fitted:
    """A model for a split's test date.

    Attributes:
        model: learnt from training and validation dates.
        validation_log_loss: on the validation date, before it learnt from that date.
        curves: log loss by iteration while its settings were chosen; empty where there are no iterations.
    """

    model: ChurnModel
    validation_log_loss: float
    curves: dict[str, list[float]]


def fit_model(recipe: Recipe, frame: Frame, split: Split, seed: int) -> Fitted:
    """Fit one estimator for a split: settings and calibration from the validation date, then both parts together.

    1. Fit on the training dates; choose the settings (trees, penalty) by the log loss on the validation date.
    2. Choose a calibration from that fit's predictions of the validation date, which are out of time.
    3. Fit again on training and validation dates with those settings; keep the calibration.

    The test date is not read.
    """
    train, validation = frame.at(*split.train), frame.at(split.validation)
    encoding, _ = learn_encoding(train.data, train.features)
    estimator = recipe.make(seed)
    y = validation.labels()
    predicted = estimator.tune(encoding.matrix(train.data), train.labels(), encoding.matrix(validation.data), y)
    settled = ChurnModel(encoding, estimator, choose_calibration(predicted, y, seed), split.fitted, frame.horizon_days)
    return Fitted(refit(settled, frame.at(*split.fitted)), mean_log_loss(y, predicted), estimator.curves())


def refit(model: ChurnModel, frame: Frame) -> ChurnModel:
    """The same settings and calibration, fitted on all rows of `frame`."""
    encoding, constant = learn_encoding(frame.data, frame.features)
    estimator = type(model.estimator)(model.estimator.seed, model.estimator.settings)
    estimator.fit(encoding.matrix(frame.data), frame.labels())
    return replace(
        model,
        encoding=encoding,
        estimator=estimator,
        trained_on=tuple(frame.dates()),
        constant=tuple(constant),
    )
