"""From touches to uplift: who can be compared, which learner, how good it is, and each user's effect."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.churn.encoding import FloatMatrix, learn_encoding
from lcm_ml.churn.estimator import FloatArray
from lcm_ml.decisions.later import TESTED_SHARE, split_by_campaign
from lcm_ml.decisions.uplift.comparing import HELD_OUT, choose_learner, measure_held_out
from lcm_ml.decisions.uplift.evaluation import Curve
from lcm_ml.decisions.uplift.learners import fit_learners
from lcm_ml.decisions.uplift.naming import uplift_segments
from lcm_ml.decisions.uplift.overlap import OBSERVATIONAL, Overlap, check_overlap, histogram, refusal
from lcm_ml.decisions.uplift.trial import BoolArray, IntArray, Trial, folds_of
from lcm_ml.frames.touches import CONTROL, touch_features

OUTCOMES = {"purchase": "is_purchased", "orders": "orders", "spend": "spend"}
LEAST_SHARE_OF_MEAN = 0.02
LEAST_ARM = 200
"""Rows of each arm to learn from; half of it to be measured on."""
HALVES = 8
ALL = "all"

NO_CONTROL = (
    "no campaign has a control arm, so that nobody knows what touched users would have done anyway: hold back a random "
    "share of each campaign's users (arm = control in raw.campaign_touches), or take untouched users as controls with "
    "--controls untouched, which is right only as far as everything that decided on the touch is in the features"
)


@dataclass(frozen=True)
class Wanted:
    """What to estimate: an outcome (of OUTCOMES) within `days`; `least` is the effect that is worth a touch."""

    outcome: str = "purchase"
    days: int = 14
    least: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Uplift:
    """What was found; empty frames and a note where effects cannot be told.

    Attributes:
        metrics: part, learner (null for overlap), campaign_kind, metric, value, ci_low, ci_high, n_touches.
        curves: learner, share, gain, ci_low, ci_high, random_gain.
        overlap: campaign_kind, arm, bin_low, bin_high, n_touches.
        scores: user_id, campaign_kind, effect, standard_error, baseline_probability, uplift_segment, is_best_kind.
        learner: the one chosen.
        note: why there are no effects; None where there are.
        warnings: what to bear in mind.
        about: design, split, counts.
    """

    metrics: pl.DataFrame = field(default_factory=pl.DataFrame)
    curves: pl.DataFrame = field(default_factory=pl.DataFrame)
    overlap: pl.DataFrame = field(default_factory=pl.DataFrame)
    scores: pl.DataFrame = field(default_factory=pl.DataFrame)
    learner: str | None = None
    note: str | None = None
    warnings: tuple[str, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)


def uplift(
    touches: pl.DataFrame,
    to_score: Iterable[pl.DataFrame],
    wanted: Wanted,
    advance: Callable[[str, float], None] = lambda _what, _share: None,
) -> Uplift:
    """Check overlap, choose a learner on earlier campaigns, measure it on later ones, and score.

    Args:
        touches: of both arms, with features and outcomes (`frames.touches`).
        to_score: rows of users and campaign kinds with the same features, some users at a time.
        wanted: the outcome and what an effect is worth.
        advance: told what is under way.
    """
    is_control = touches["arm"] == CONTROL if touches.height else pl.Series([], dtype=pl.Boolean)
    if not is_control.any() or is_control.all():
        return Uplift(note=NO_CONTROL if touches.height else "no touch has an outcome that is known yet")
    advance("overlap", 0.05)
    encoding, _ = learn_encoding(touches, touch_features(touches))
    x, treated = encoding.matrix(touches), (~is_control).cast(pl.Float64).to_numpy()
    user, campaign = _numbers(touches["user_id"]), _numbers(touches["campaign_id"])
    overlap = check_overlap(x, treated, campaign, user, wanted.seed)
    kinds = touches["kind"].to_numpy().astype(str)
    refused = {kind: refusal(overlap, treated, kinds == kind) for kind in sorted(set(kinds.tolist()))}
    known = Uplift(
        metrics=pl.DataFrame(_overlap_rows(overlap, kinds), schema_overrides=_METRIC_TYPES),
        overlap=pl.DataFrame(
            [{"campaign_kind": k, **row} for k in refused for row in histogram(overlap, treated, kinds == k)]
        ),
        warnings=tuple(f"campaigns of kind {kind} left out: {why}" for kind, why in refused.items() if why),
        about={"design": overlap.design, "auc": overlap.auc, "p_value": overlap.p_value},
    )
    kept = overlap.is_compared & np.isin(kinds, [kind for kind, why in refused.items() if why is None])
    split = _split(touches, kept, wanted) if kept.any() else None
    if split is None or not _is_enough(treated, split):
        why = "; ".join(f"campaigns of kind {kind}: {told}" for kind, told in refused.items() if told)
        fewer = f"fewer than {LEAST_ARM} rows of an arm to learn from, or {LEAST_ARM // 2} to be measured on"
        return replace(known, note=f"touched and untouched users cannot be compared: {why or fewer}", warnings=())
    outcome = touches[OUTCOMES[wanted.outcome]].cast(pl.Float64).to_numpy()
    trial = Trial(x, treated, outcome, overlap.propensity, user, wanted.outcome == "purchase")
    train, test = trial.take(split.train), trial.take(split.test)
    learner, rows = choose_learner(train, wanted.seed, lambda share: advance("choosing", 0.1 + 0.4 * share))
    advance("measuring", 0.55)
    fits = fit_learners(train, wanted.seed)
    held_out, curves, _ = measure_held_out(fits, learner, test, wanted.seed)
    figures = pl.DataFrame(
        [
            {**row, "campaign_kind": ALL, "n_touches": len(test if row["part"] == HELD_OUT else train)}
            for row in rows + held_out
        ],
        schema_overrides=_METRIC_TYPES,
    )
    advance("scoring", 0.65)
    scorer = Scorer(
        trial.take(kept),
        touches.filter(pl.Series(kept))["is_purchased"].cast(pl.Float64).to_numpy(),
        learner,
        wanted,
        lambda share: advance("scoring", 0.65 + 0.25 * share),
    )
    compared = sorted(set(kinds[kept].tolist()))
    parts = (part.filter(pl.col("kind").is_in(compared)) for part in to_score)
    scores = pl.concat([scorer.rows(part, encoding.matrix(part)) for part in parts])
    return replace(
        known,
        metrics=pl.concat([known.metrics, figures.select(known.metrics.columns)]),
        curves=pl.concat([_curve_rows(name, curve) for name, curve in curves.items()]),
        scores=scores,
        learner=learner,
        warnings=(*known.warnings, *_warnings(overlap, held_out, learner)),
        about={
            **known.about,
            "split": split.told,
            "n_train": len(train),
            "n_test": len(test),
            "n_test_treated": int(test.treated.sum()),
        },
    )


_METRIC_TYPES: dict[str, Any] = {
    "learner": pl.String,
    "value": pl.Float64,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
}


@dataclass(frozen=True)
class _Split:
    train: BoolArray
    test: BoolArray
    told: str


def _numbers(values: pl.Series) -> IntArray:
    return np.unique(values.to_numpy().astype(str), return_inverse=True)[1].astype(np.int64)


def _split(touches: pl.DataFrame, kept: BoolArray, wanted: Wanted) -> _Split:
    """Later campaigns are held out; with one campaign only, users at random."""
    rows = touches.with_row_index("row").filter(pl.Series(kept))
    by_campaign = split_by_campaign(rows, wanted.days)
    if by_campaign is not None:
        train, test = (np.zeros(len(kept), dtype=bool) for _ in range(2))
        train[by_campaign.train["row"].to_numpy()] = True
        test[by_campaign.test["row"].to_numpy()] = True
        return _Split(train, test, f"campaigns from {by_campaign.cut} on")
    aside = folds_of(_numbers(touches["user_id"]), round(1 / TESTED_SHARE), wanted.seed) == 0
    return _Split(kept & ~aside, kept & aside, "a third of the users, at random")


def _is_enough(treated: FloatArray, split: _Split) -> bool:
    return all(
        min(treated[rows].sum(), (1 - treated[rows]).sum()) >= least
        for rows, least in ((split.train, LEAST_ARM), (split.test, LEAST_ARM // 2))
    )


def _overlap_rows(overlap: Overlap, kinds: npt.NDArray[np.str_]) -> list[dict[str, Any]]:
    none = {"part": "overlap", "learner": None, "ci_low": None, "ci_high": None}
    rows = [
        {**none, "campaign_kind": ALL, "metric": metric, "value": value, "n_touches": len(kinds)}
        for metric, value in (("propensity_auc", overlap.auc), ("propensity_p_value", overlap.p_value))
    ]
    for kind in sorted(set(kinds.tolist())):
        own = kinds == kind
        value = float(overlap.is_compared[own].mean())
        rows.append(
            {**none, "campaign_kind": kind, "metric": "overlap_share", "value": value, "n_touches": int(own.sum())}
        )
    return rows


def _curve_rows(name: str, curve: Curve) -> pl.DataFrame:
    low, high = curve.interval()
    return pl.DataFrame(
        {
            "learner": [name] * len(curve.shares),
            "share": curve.shares,
            "gain": curve.gain,
            "ci_low": low,
            "ci_high": high,
            "random_gain": curve.random,
        }
    )


def _warnings(overlap: Overlap, rows: list[dict[str, Any]], learner: str) -> list[str]:
    found = []
    if overlap.design == OBSERVATIONAL:
        found.append(
            f"the arms are not at random (features tell them apart with an AUC of {overlap.auc:.2f}): effects are "
            "right only as far as everything that decided on the touch is in the features"
        )
    qini = next(row for row in rows if row["learner"] == learner and row["metric"] == "qini")
    if qini["ci_low"] is None or qini["ci_low"] <= 0:
        found.append(
            "on the rows held out the ranking is not better than chance beyond doubt (its Qini interval holds 0): a "
            "mean effect for everybody may be all that these data show"
        )
    return found


def fit_effects(
    trial: Trial, learner: str, seed: int, advance: Callable[[float], None] = lambda _share: None
) -> Callable[[FloatMatrix], tuple[FloatArray, FloatArray]]:
    """What gives each row of a matrix its effect, and its standard error.

    The error comes from HALVES fits on random halves of the users: what halves without replacement vary by is what the
    whole varies by (Politis and Romano 1994). It does not hold what the trees smooth away.
    """
    whole = fit_learners(trial, seed, (learner,)).effects[learner]
    halves = []
    for draw in range(HALVES):
        half = trial.take(folds_of(trial.user, 2, seed + 1 + draw) == 0)
        halves.append(fit_learners(half, seed + 1 + draw, (learner,)).effects[learner])
        advance((draw + 1) / HALVES)
    return lambda x: (whole(x), np.asarray(np.std([effect(x) for effect in halves], axis=0, ddof=1)))


class Scorer:
    """Effects and segments of users, as rows of ml.uplift_scores."""

    def __init__(
        self,
        trial: Trial,
        purchased: FloatArray,
        learner: str,
        wanted: Wanted,
        advance: Callable[[float], None],
    ) -> None:
        self._effects = fit_effects(trial, learner, wanted.seed, advance)
        self._baseline = fit_learners(replace(trial, outcome=purchased, is_binary=True), wanted.seed, ()).untreated
        self._least = wanted.least if wanted.least is not None else LEAST_SHARE_OF_MEAN * _usual(trial.outcome)

    def rows(self, users: pl.DataFrame, x: FloatMatrix) -> pl.DataFrame:
        """Those of users with all their kinds of campaigns.

        Args:
            users: user_id and kind among its columns.
            x: their encoded features.
        """
        effect, error = self._effects(x)
        baseline = self._baseline(x)
        return (
            users.select("user_id", campaign_kind="kind")
            .with_columns(
                effect=pl.Series(effect),
                standard_error=pl.Series(error),
                baseline_probability=pl.Series(baseline),
                uplift_segment=pl.Series(uplift_segments(effect, error, baseline, self._least)),
            )
            .with_columns(
                is_best_kind=pl.struct(-pl.col("effect"), "campaign_kind").rank("ordinal").over("user_id") == 1
            )
        )


def _usual(outcome: FloatArray) -> float:
    """Mean of the outcome where there is one: 1 for purchases, a usual spend for money."""
    above = outcome[outcome > 0]
    return float(above.mean()) if len(above) else 1.0
