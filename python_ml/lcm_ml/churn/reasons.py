"""Why a user has its score: signed contributions of features, which add up to the score in log-odds."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.churn.encoding import FloatMatrix
from lcm_ml.churn.estimator import FloatArray
from lcm_ml.churn.metrics import log_odds
from lcm_ml.churn.model import ChurnModel
from lcm_ml.churn.wording import phrase
from lcm_ml.frames.frame import Frame
from lcm_ml.warehouse.packed import Packed

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
    usual_of: dict[str, Any],
    advance: Callable[[float], None] = lambda _: None,
) -> Packed:
    """Rows of ml.churn_score_reasons for the users of one date, sorted by user_id and reason_rank.

    Args:
        model: that scored them.
        version: its name.
        frame: the users, one as_of_date, sorted by user_id.
        probability: their scores, shape (rows,).
        run_id: the run.
        top: features told for each user.
        usual_of: the usual value of each feature, as `usual_values` tells it.
        advance: told the share that is done.
    """
    names = [column.name for column in model.encoding.columns]
    usual_row = pl.DataFrame({name: [usual_of[name]] for name in names}, schema=_schema(frame, names))
    usual = model.encoding.matrix(usual_row)[0]
    slope, intercept = model.calibration.line()
    told = Packed()
    for start in range(0, frame.data.height, BATCH):
        advance(start / frame.data.height)
        users, score = frame.data.slice(start, BATCH), log_odds(probability[start : start + BATCH])
        method, base, found = contributions(model, model.encoding.matrix(users), usual)
        found, base = found * slope, base * slope + intercept
        told.add(_rows(users, names, usual_of, method, base, found, score, min(top, len(names))))
    return told.fill({"model_version": version, "run_id": run_id})


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
    by_feature = keys[np.repeat(np.arange(count), top)].with_columns(
        _in_words(data, names, usual, order),
        reason_rank=pl.Series(np.tile(np.arange(1, top + 1, dtype=np.int32), count)),
        contribution=pl.Series(chosen.ravel()),
    )
    ends = [_plain(keys, 0, bases, "the average user"), _plain(keys, top + 1, rest, "everything else")]
    rows = pl.concat([by_feature, *ends], how="diagonal")
    return rows.with_columns(method=pl.lit(method)).sort("user_id", "reason_rank")


def _in_words(
    data: pl.DataFrame, names: Sequence[str], usual: dict[str, Any], order: npt.NDArray[np.int64]
) -> list[pl.Series]:
    """Feature, its value, the usual one and the reason of all users and ranks, user by user.

    Each value is told once, however many users have it.
    """
    features, top = order.ravel(), order.shape[1]
    parts = []
    for index in np.unique(features):
        name, places = names[index], np.flatnonzero(features == index)
        told, others = phrase(name), phrase(name).number(usual[name])
        values = pl.DataFrame({"place": places, "value": data.get_column(name).gather(places // top)})
        groups = values.group_by("value").agg("place")
        distinct = groups.get_column("value").to_list()
        parts.append(
            groups.select(
                "place",
                feature=pl.lit(name),
                feature_value=pl.Series([_text(value) for value in distinct], dtype=pl.String),
                usual_value=pl.lit(_text(usual[name]), dtype=pl.String),
                reason=pl.Series([f"{told.tell(value)} (others: {others})" for value in distinct], dtype=pl.String),
            ).explode("place")
        )
    return pl.concat(parts).sort("place").drop("place").get_columns()


def _plain(keys: pl.DataFrame, rank: int, contribution: FloatArray, reason: str) -> pl.DataFrame:
    return keys.with_columns(
        reason_rank=pl.lit(rank, dtype=pl.Int32),
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
