"""Why a user has its score: signed contributions of features, which add up to the score in log-odds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from lcm_ml.churn.encoding import FloatMatrix
from lcm_ml.churn.estimator import FloatArray
from lcm_ml.churn.metrics import log_odds
from lcm_ml.churn.model import ChurnModel
from lcm_ml.churn.wording import phrase
from lcm_ml.frames.frame import Frame

BATCH = 50_000


def contributions(model: ChurnModel, x: FloatMatrix, usual: FloatMatrix) -> tuple[str, FloatArray, FloatArray]:
    """What each feature adds to the log-odds of churn, before calibration.

    Exact where the estimator knows (TreeSHAP, Lundberg and others 2020; coefficients); else what changes when the
    feature takes its usual value (occlusion), which leaves a remainder.

    Args:
        model: the model.
        x: encoded rows, shape (rows, columns).
        usual: the usual value of each column, shape (columns,).

    Returns:
        The method, the log-odds of the average user, and contributions of shape (rows, features).
    """
    exact = model.estimator.contributions(x)
    if exact is not None:
        method, base, by_column = exact
        return method, base, _by_feature(model, by_column)
    base = log_odds(model.estimator.predict_proba(usual[None, :]))
    now = log_odds(model.estimator.predict_proba(x))
    found = np.zeros((len(x), len(model.encoding.columns)))
    changed = x.copy()
    for index, places in enumerate(_places(model)):
        changed[:, places] = usual[places]
        found[:, index] = now - log_odds(model.estimator.predict_proba(changed))
        changed[:, places] = x[:, places]
    return "occlusion", base, found


def _places(model: ChurnModel) -> list[slice]:
    """The matrix columns of each feature."""
    places, at = [], 0
    for column in model.encoding.columns:
        width = max(len(column.levels), 1)
        places.append(slice(at, at + width))
        at += width
    return places


def _by_feature(model: ChurnModel, by_column: FloatArray) -> FloatArray:
    return np.column_stack([by_column[:, places].sum(axis=1) for places in _places(model)])


def reason_rows(
    model: ChurnModel,
    version: str,
    frame: Frame,
    probability: FloatArray,
    run_id: str,
    top: int,
    usual_of: dict[str, Any] | None = None,
) -> pl.DataFrame:
    """Rows of ml.churn_score_reasons for the users of one date.

    Args:
        model: that scored them.
        version: its name.
        frame: the users, one as_of_date.
        probability: their scores, shape (rows,).
        run_id: the run.
        top: features told for each user.
        usual_of: the usual value of each feature, as `usual_values` tells it; None: among the users of `frame`.
    """
    names = [column.name for column in model.encoding.columns]
    known = usual_of if usual_of is not None else usual_values(model, frame)
    x = model.encoding.matrix(frame.data)
    usual = model.encoding.matrix(pl.DataFrame({name: [known[name]] for name in names}, schema=_schema(frame, names)))[
        0
    ]
    slope, intercept = model.calibration.line()
    parts = []
    for start in range(0, len(x), BATCH):
        rows = slice(start, start + BATCH)
        method, base, found = contributions(model, x[rows], usual)
        found, base = found * slope, base * slope + intercept
        parts.append(
            _rows(
                frame.data[rows],
                names,
                known,
                method,
                base,
                found,
                log_odds(probability[rows]),
                min(top, len(names)),
            )
        )
    return pl.concat(parts).with_columns(model_version=pl.lit(version), run_id=pl.lit(run_id))


def usual_values(model: ChurnModel, frame: Frame) -> dict[str, Any]:
    """The median, or the most frequent value, of each of the model's features among the users of `frame`."""
    return {column.name: _usual(frame.data.get_column(column.name)) for column in model.encoding.columns}


def _rows(
    data: pl.DataFrame,
    names: Sequence[str],
    usual: dict[str, Any],
    method: str,
    base: FloatArray,
    found: FloatArray,
    score: FloatArray,
    top: int,
) -> pl.DataFrame:
    count = len(found)
    order = np.argsort(-np.abs(found), axis=1, kind="stable")[:, :top]
    chosen = np.take_along_axis(found, order, axis=1)
    bases = np.broadcast_to(base, (count,))
    rest = score - bases - chosen.sum(axis=1)
    keys = data.select("user_id", "as_of_date")
    told = {name: phrase(name) for name in names}
    frames = [_plain(keys, 0, method, bases, "the average user")]
    for rank in range(top):
        features = [names[index] for index in order[:, rank]]
        values = [data.item(row, name) for row, name in enumerate(features)]
        frames.append(
            keys.with_columns(
                reason_rank=pl.lit(rank + 1, dtype=pl.Int32),
                method=pl.lit(method),
                feature=pl.Series(features, dtype=pl.String),
                feature_value=pl.Series([_text(value) for value in values], dtype=pl.String),
                usual_value=pl.Series([_text(usual[name]) for name in features], dtype=pl.String),
                contribution=pl.Series(chosen[:, rank]),
                reason=pl.Series(
                    [
                        f"{told[name].tell(value)} (others: {told[name].number(usual[name])})"
                        for name, value in zip(features, values, strict=True)
                    ],
                    dtype=pl.String,
                ),
            )
        )
    frames.append(_plain(keys, top + 1, method, rest, "everything else"))
    return pl.concat(frames)


def _plain(keys: pl.DataFrame, rank: int, method: str, contribution: FloatArray, reason: str) -> pl.DataFrame:
    nothing = pl.lit(None, dtype=pl.String)
    return keys.with_columns(
        reason_rank=pl.lit(rank, dtype=pl.Int32),
        method=pl.lit(method),
        feature=nothing,
        feature_value=nothing,
        usual_value=nothing,
        contribution=pl.Series(np.array(contribution)),
        reason=pl.lit(reason),
    )


def _usual(values: pl.Series) -> Any:
    """The median of numbers, the most frequent of anything else."""
    known = values.drop_nulls()
    if known.is_empty():
        return None
    if values.dtype.is_numeric():
        return float(known.cast(pl.Float64).median())  # type: ignore[arg-type]
    return known.mode().sort()[0]


def _schema(frame: Frame, names: Sequence[str]) -> dict[str, Any]:
    kinds = {name: frame.data.schema[name] for name in names}
    return {name: pl.Float64 if kind.is_numeric() else kind for name, kind in kinds.items()}


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return f"{value:.6g}" if isinstance(value, float) else str(value)
