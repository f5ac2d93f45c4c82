"""Does a group of features help out of time: the same models with it and without it, on the same users and dates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from lcm_ml.churn.estimator import Recipe
from lcm_ml.churn.evaluation import require_both_classes
from lcm_ml.churn.metrics import Measured, Outcome, Resamples, mean_over_dates, measure_outcome
from lcm_ml.churn.model import fit_model
from lcm_ml.churn.training import choosing_splits
from lcm_ml.errors import LcmError
from lcm_ml.frames.frame import KEYS, Frame
from lcm_ml.frames.splits import Split, split_by_date

Advance = Callable[[str, float], None]

METRICS = ("log_loss", "auc")
CHOICE, LAST_DATE = "choice", "last_date"
ALONE, REMOVED, BESIDE_KEPT = "alone", "removed", "beside_kept"
TOGETHER = "(all kept)"


@dataclass(frozen=True)
class Effect:
    """What a group changes: the figure with it less the figure without it, mean over dates; paired by user.

    Attributes:
        group: name of the group, or TOGETHER.
        model: name of the estimator.
        metric: of METRICS.
        comparison: ALONE (added to the mart's features), REMOVED (columns of the mart, left out) or BESIDE_KEPT (left
            out of all that are kept).
        split: CHOICE (the dates that decide) or LAST_DATE (the one they never saw).
        with_it: the figure with the group.
        without: the figure without it.
        n_dates: dates it runs over.
        n_features: features of the group.
    """

    group: str
    model: str
    metric: str
    comparison: str
    split: str
    with_it: Measured
    without: Measured
    n_dates: int
    n_features: int

    @property
    def difference(self) -> Measured:
        """With it less without it: below 0 a log loss is better, above 0 an AUC."""
        return self.with_it.minus(self.without)

    @property
    def helps(self) -> bool:
        """The whole 95 % interval is on the better side."""
        low, high = self.difference.interval
        return high < 0 if self.metric == "log_loss" else low > 0


@dataclass(frozen=True)
class Ablation:
    """What was found.

    Attributes:
        effects: of every group.
        kept: added groups that help.
        useful: groups of columns that are there already and help.
        deciding: name of the model that this rests on.
    """

    effects: list[Effect]
    kept: tuple[str, ...]
    useful: tuple[str, ...]
    deciding: str


def ablate(
    frame: Frame,
    added: Mapping[str, pl.DataFrame],
    removed: Mapping[str, Sequence[str]],
    models: Sequence[Recipe],
    folds: int,
    seed: int,
    resamples: int,
    advance: Advance,
) -> Ablation:
    """Measure every group on dates that are predicted from earlier ones, and choose.

    A group is kept when the whole interval of its difference in log loss lies below 0 with the first model, over the
    last `folds` dates before the last labelled one. That one takes no part in the choice: choosing by a date and
    reporting the figures of the same date would be too good (Cawley and Talbot 2010, JMLR 11).

    Args:
        frame: labelled rows without any of `added`.
        added: group to user_id, as_of_date and one column per feature.
        removed: group to columns of `frame`; those it has not are no part of it.
        models: the first one decides.
        folds: dates that decide.
        seed: of models and resamples.
        resamples: of the bootstrap.
        advance: told what is under way and the share done, 0 to 1.

    Raises:
        LcmError: with too few dates, or one class only on the last one.
    """
    last = split_by_date(frame.dates(), frame.horizon_days)
    choosing = choosing_splits(frame, folds)
    if not choosing:
        raise LcmError(
            "no date is left to choose features by: it takes one predicted from earlier ones, and a later one to test",
            "load more history, or lower the vars churn_horizon_days or as_of_step_days and run `dbt build`",
        )
    require_both_classes(frame, "test", last.test)
    splits = [*choosing, last]
    measured = _Measured(frame, splits, models, seed, resamples, advance)
    known = {group: [name for name in names if name in frame.features] for group, names in removed.items()}
    known = {group: names for group, names in known.items() if names}
    # The kept ones are fitted together once more, and each without; how many that are is not known yet.
    measured.expect(1 + 2 * len(added) + len(known))
    base = measured.of("without candidates", frame)
    effects: list[Effect] = []
    for group, names in known.items():
        fewer = replace(frame, features=tuple(name for name in frame.features if name not in names))
        effects += measured.effects(group, REMOVED, base, measured.of(f"without {group}", fewer), len(names))
    for group, columns in added.items():
        found = measured.of(f"with {group}", with_columns(frame, [columns]))
        effects += measured.effects(group, ALONE, found, base, columns.width - len(KEYS))
    kept, useful = (_helping(effects, comparison, models[0].name) for comparison in (ALONE, REMOVED))
    if len(kept) > 1:
        whole = measured.of("with all kept", with_columns(frame, [added[group] for group in kept]))
        size = sum(added[group].width - len(KEYS) for group in kept)
        effects += measured.effects(TOGETHER, ALONE, whole, base, size)
        for group in kept:
            others = with_columns(frame, [added[other] for other in kept if other != group])
            found = measured.of(f"all kept but {group}", others)
            effects += measured.effects(group, BESIDE_KEPT, whole, found, added[group].width - len(KEYS))
    return Ablation(effects, kept, useful, models[0].name)


def _helping(effects: Sequence[Effect], comparison: str, model: str) -> tuple[str, ...]:
    decides = (comparison, CHOICE, "log_loss", model)
    return tuple(
        each.group
        for each in effects
        if (each.comparison, each.split, each.metric, each.model) == decides and each.helps
    )


def with_columns(frame: Frame, groups: Sequence[pl.DataFrame]) -> Frame:
    """The frame with the features of these groups; null where a user has none.

    Raises:
        LcmError: when two have a feature of the same name.
    """
    data, features = frame.data, frame.features
    for columns in groups:
        names = [name for name in columns.columns if name not in KEYS]
        if taken := sorted(set(names) & set(data.columns)):
            raise LcmError(f"a candidate feature is called as another one: {', '.join(taken)}", "rename it")
        data = data.join(columns, on=KEYS, how="left", maintain_order="left")
        features = (*features, *names)
    return replace(frame, data=data, features=features)


Figures = dict[str, list[dict[str, Measured]]]
"""Name of the model to its figures on each date, the last one last."""


class _Measured:
    """Fits and measures variants of a frame on the same splits and the same draws of users."""

    def __init__(
        self,
        frame: Frame,
        splits: Sequence[Split],
        models: Sequence[Recipe],
        seed: int,
        resamples: int,
        advance: Advance,
    ) -> None:
        self._splits, self._models, self._seed, self._advance = splits, models, seed, advance
        users = [frame.at(split.test).data.get_column("user_id").to_numpy() for split in splits]
        self._draws = Resamples(users, seed, resamples)
        self._done, self._expected = 0, 1

    def expect(self, variants: int) -> None:
        self._expected = variants * len(self._splits) * len(self._models)

    def of(self, what: str, frame: Frame) -> Figures:
        found: Figures = {}
        for recipe in self._models:
            for split in self._splits:
                self._advance(f"{recipe.name} {what}, {split.test}", min(self._done / self._expected, 1.0))
                self._done += 1
                test = frame.at(split.test)
                probability = fit_model(recipe, frame, split, self._seed).model.predict(test.data)
                users = test.data.get_column("user_id").to_numpy()
                outcome = Outcome(users, test.labels(), probability, probability)
                found.setdefault(recipe.name, []).append(measure_outcome(outcome, self._draws))
        return found

    def effects(self, group: str, comparison: str, with_it: Figures, without: Figures, n_features: int) -> list[Effect]:
        found = []
        for recipe in self._models:
            for split, dates in ((CHOICE, slice(None, -1)), (LAST_DATE, slice(-1, None))):
                more = mean_over_dates(with_it[recipe.name][dates])
                less = mean_over_dates(without[recipe.name][dates])
                found += [
                    Effect(
                        group,
                        recipe.name,
                        metric,
                        comparison,
                        split,
                        more[metric],
                        less[metric],
                        len(with_it[recipe.name][dates]),
                        n_features,
                    )
                    for metric in METRICS
                ]
        return found
