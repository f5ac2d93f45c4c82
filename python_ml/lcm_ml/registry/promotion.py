"""Which version serves, and why: every change of the champion follows one rule or says who overruled it."""

import secrets
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import duckdb
import numpy as np
import polars as pl

from lcm_ml.churn.metrics import Measured, Resamples, figure, log_odds
from lcm_ml.churn.model import ChurnModel
from lcm_ml.errors import LcmError
from lcm_ml.frames.frame import Frame, read
from lcm_ml.registry import artefacts
from lcm_ml.registry.runs import utc_now
from lcm_ml.registry.staleness import why_unusable
from lcm_ml.registry.versions import find_version

RULE = (
    "a candidate is promoted when its log loss, on dates that neither it nor the champion was trained on, is clearly "
    "lower (95 % interval below 0), or when it is not clearly higher and the candidate learnt from later dates"
)
RESAMPLES = 500


@dataclass(frozen=True)
class Contender:
    """A version and the models that may speak for it: itself, and the one that was evaluated in its place."""

    row: dict[str, Any]
    models: tuple[ChurnModel, ...]

    @property
    def version(self) -> str:
        """Its name."""
        return str(self.row["model_version"])

    def out_of_time(self, day: date) -> ChurnModel | None:
        """The one of its models that learnt most and still knew nothing of `day`'s outcomes."""
        unseen = [m for m in self.models if m.trained_on[-1] + timedelta(days=m.horizon_days) <= day]
        return max(unseen, key=lambda model: model.trained_on[-1], default=None)


@dataclass(frozen=True)
class Verdict:
    """Whether to promote, why in words, and the difference in log loss (candidate less champion) where there is one."""

    promote: bool
    reason: str
    difference: Measured | None = None


def load_contender(con: duckdb.DuckDBPyConnection, row: dict[str, Any]) -> Contender:
    """A version of ml.model_versions with its models.

    Raises:
        LcmError: when its files are gone or were changed.
    """
    rows = [row]
    if row["evaluated_version"]:
        rows.append(find_version(con, row["evaluated_version"]))
    return Contender(row, tuple(artefacts.load(each["artefact"], each["artefact_hash"])[0] for each in rows))


def current_champion(con: duckdb.DuckDBPyConnection) -> dict[str, Any] | None:
    """The row of the champion, or None."""
    try:
        return find_version(con)
    except LcmError:
        return None


def judge(con: duckdb.DuckDBPyConnection, candidate: Contender, frame: Frame) -> Verdict:
    """Whether the candidate takes the champion's place.

    Args:
        con: an open connection, for the champion and its state.
        candidate: the new version.
        frame: labelled rows, as training reads them.
    """
    row = current_champion(con)
    if row is None:
        return Verdict(True, "there is no champion yet")
    if row["model_version"] == candidate.version:
        return Verdict(False, "it is the champion already")
    if unusable := why_unusable(con):
        return Verdict(True, unusable)
    try:
        champion = load_contender(con, row)
        champion.models[0].encoding.check(frame.data.schema)
    except LcmError as error:
        return Verdict(True, f"the champion cannot be used: {error.message}")
    return compare_contenders(candidate, champion, frame)


def compare_contenders(candidate: Contender, champion: Contender, frame: Frame) -> Verdict:
    """The rule, on every date that is out of time for both."""
    pairs = [(day, candidate.out_of_time(day), champion.out_of_time(day)) for day in frame.dates()]
    known = [(day, mine, theirs) for day, mine, theirs in pairs if mine and theirs]
    later = candidate.row["trained_to"] > champion.row["trained_to"]
    if not known:
        when = "learnt from later dates" if later else "did not learn from later dates"
        return Verdict(later, f"no date is out of time for both, and the candidate {when}")
    users, differences = [], []
    for day, mine, theirs in known:
        rows = frame.at(day)
        y = rows.labels()
        users.append(rows.data.get_column("user_id").to_numpy())
        differences.append(_losses(mine, rows, y) - _losses(theirs, rows, y))
    draws = Resamples(users, 0, RESAMPLES)
    weights = [draws.weights(own) for own in users]
    resampled = np.mean([d @ w / w.sum(axis=0) for d, w in zip(differences, weights, strict=True)], axis=0)
    difference = Measured(float(np.mean([d.mean() for d in differences])), resampled)
    low, high = difference.interval
    dates = ", ".join(str(day) for day, _, _ in known)
    figures = f"log loss {difference.value:+.4f} [{low:+.4f}, {high:+.4f}] against {champion.version} on {dates}"
    if high < 0:
        return Verdict(True, f"clearly better: {figures}", difference)
    if low <= 0 and later:
        return Verdict(True, f"not clearly worse, and learnt from later dates: {figures}", difference)
    what = "clearly worse" if low > 0 else "not clearly better, and did not learn from later dates"
    return Verdict(False, f"{what}: {figures}", difference)


def _losses(model: ChurnModel, rows: Frame, y: Any) -> Any:
    z = log_odds(model.predict(rows.data))
    return np.logaddexp(0, z) - y * z


def promotion_row(
    action: str,
    version: str,
    replaced: str | None,
    reason: str,
    *,
    forced: bool = False,
    difference: Measured | None = None,
) -> pl.DataFrame:
    """A decision as a row of ml.model_promotions."""
    now = utc_now()
    found = figure(difference)
    return pl.DataFrame(
        {
            "promotion_id": [f"{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(2)}"],
            "action": [action],
            "model_version": [version],
            "replaced_version": [replaced],
            "is_forced": [forced],
            "reason": [reason],
            "log_loss_difference": [found["value"]],
            "ci_low": [found["ci_low"]],
            "ci_high": [found["ci_high"]],
            "decided_at": [now],
        },
        schema_overrides={
            "replaced_version": pl.String,
            "log_loss_difference": pl.Float64,
            "ci_low": pl.Float64,
            "ci_high": pl.Float64,
        },
    )


def previous_champion(con: duckdb.DuckDBPyConnection) -> str:
    """The version to roll back to: the one before in the row of champions, so that a second call goes further back.

    Raises:
        LcmError: when there is none left.
    """
    line: list[str] = []
    for action, version in con.execute(
        "select action, model_version from ml.model_promotions where action in ('promote', 'rollback') "
        "order by promotion_id"
    ).fetchall():
        if action == "promote":
            line.append(version)
        elif version in line:
            line = line[: line.index(version) + 1]
    usable = set(
        read(con, "select model_version from ml.model_versions where status != 'deleted'")["model_version"].to_list()
    )
    before = [version for version in line[:-1] if version in usable]
    if not before:
        raise LcmError("there is no earlier champion to go back to", "see `lcm-ml models list`")
    return before[-1]
