"""Counterfactual hints: the smallest change in actionable features that leaves the high-risk band.

After Wachter, Mittelstadt and Russell (2018), "Counterfactual explanations without opening the black box": the nearest
user whom the model would score below the band. It says what the model would say, not what a campaign would do.
"""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from lcm_ml.churn.encoding import FloatMatrix
from lcm_ml.churn.estimator import FloatArray
from lcm_ml.churn.model import ChurnModel
from lcm_ml.churn.ties import Values, moved_along, needed, possible, settle
from lcm_ml.churn.wording import phrase
from lcm_ml.errors import LcmError
from lcm_ml.frames.frame import Frame
from lcm_ml.warehouse.packed import Packed

BATCH = 50_000
VALUES = 40
COARSE_VALUES = 8
MOST_CHANGES = 3
SAME = 0.99
MEND = "mend the var actionable_features and run `dbt build`"
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lever:
    """A feature that may be moved.

    Attributes:
        feature: its name.
        direction: up or down.
        targets: values of users scored together that it may take alone, ascending.
        coarse: the fewer of them that it may take together with another lever.
        known: all values of users scored together, sorted, which give each value its rank.
    """

    feature: str
    direction: str
    targets: FloatArray
    coarse: FloatArray
    known: FloatArray

    def rank(self, values: FloatArray) -> FloatArray:
        """The share of users below a value, those who share it counting half: the unit of a move."""
        below = np.searchsorted(self.known, values, "left")
        up_to = np.searchsorted(self.known, values, "right")
        return np.asarray((below + up_to) / (2 * len(self.known)), dtype=np.float64)

    def allows(self, before: FloatArray, target: FloatArray) -> npt.NDArray[np.bool_]:
        """Whether it may go from one value to the other; a missing value stays."""
        return np.asarray(target > before if self.direction == "up" else target < before)


@dataclass(frozen=True)
class Hints:
    """Rows of ml.churn_hints, and features that were no lever in this shop with the reason why."""

    rows: Packed
    left_out: dict[str, str]

    def summary(self) -> dict[str, Any]:
        """Users in the band, those who would leave it, and how often each lever is part of a hint, most often first."""
        levers, leaving = Counter[str](), 0
        for part in self.rows.frames():
            levers.update(name for changes in part.get_column("changes") for name in json.loads(changes))
            leaving += int((part.get_column("n_changes") > 0).sum())
        return {
            "high_risk": self.rows.height,
            "leaving": leaving,
            "levers": dict(levers.most_common()),
            "left_out": self.left_out,
        }


def hint_rows(
    model: ChurnModel,
    version: str,
    frame: Frame,
    probability: FloatArray,
    run_id: str,
    high: float,
    actionable: Mapping[str, Any],
    advance: Callable[[float], None] = lambda _: None,
) -> Hints:
    """The hint of each user of one date whose score lies in the high-risk band.

    Searched are all single changes; then, exactly, all pairs and triples of changes of the user's three strongest
    levers, with fewer values each. Fewest changes come first, then the smallest total move in ranks.

    Args:
        model: that scored them.
        version: its name.
        frame: all users scored together.
        probability: their scores, shape (rows,).
        run_id: the run.
        high: a probability from here on is high risk.
        actionable: the var actionable_features, feature to its direction and limits.
        advance: told the share that is done.

    Raises:
        LcmError: for an entry of actionable_features that cannot be used.
    """
    levers, left_out = find_levers(model, frame, actionable)
    inside = np.flatnonzero(probability >= high)
    rows = Packed()
    for users in _parts(len(inside), BATCH):
        advance(users[0] / len(inside))
        data = frame.data[inside[users]]
        after, moves = _Search(model, data, levers, high).run()
        schema = data.schema
        told = [_told(move, levers, schema) for move in moves]
        rows.add(
            data.select("user_id", "as_of_date").with_columns(
                churn_probability=pl.Series(probability[inside[users]], dtype=pl.Float64),
                probability_after=pl.Series(after, dtype=pl.Float64).fill_nan(None),
                n_changes=pl.Series([count for count, _, _ in told], dtype=pl.Int32),
                changes=pl.Series([changes for _, changes, _ in told], dtype=pl.String),
                hint=pl.Series([hint for _, _, hint in told], dtype=pl.String),
            )
        )
    return Hints(rows.fill({"model_version": version, "run_id": run_id}), left_out)


def find_levers(model: ChurnModel, frame: Frame, actionable: Mapping[str, Any]) -> tuple[list[Lever], dict[str, str]]:
    """The levers of this model and shop, and why other features of the var are none.

    A feature that the model does not use moves nothing. One that follows a feature which is no lever (visits, in a shop
    that records nothing but purchases) cannot be moved by itself.

    Raises:
        LcmError: for an entry that cannot be used.
    """
    numbers = [name for name in frame.features if frame.data.schema[name].is_numeric()]
    used = {column.name for column in model.encoding.columns}
    levers, left_out, taken = [], {}, dict[str, str]()
    for name, entry in actionable.items():
        direction, least, most = _entry(name, entry)
        if name not in frame.features:
            raise LcmError(f"actionable_features names {name}, which is no feature", MEND)
        if name not in numbers:
            raise LcmError(f"actionable_features names {name}, which is no number", MEND)
        along = moved_along(numbers, name)
        if tied := sorted(lever for lever in taken if lever in along or name in moved_along(numbers, lever)):
            raise LcmError(f"actionable_features names {tied[0]} and {name}, which move together: keep one", MEND)
        taken[name] = name
        values = _floats(frame.data.get_column(name))
        known = np.sort(values[np.isfinite(values)])
        if not along & used or len(np.unique(known)) < 2:
            left_out[name] = "the model does not use it"
            continue
        if twin := _twin(frame.data, values, sorted(used & set(numbers) - along)):
            left_out[name] = f"here it goes with {twin}, which is no lever"
            continue
        fine = _thinned(_common(known, least, most), VALUES)
        levers.append(Lever(name, direction, fine, _thinned(fine, COARSE_VALUES), known))
    return levers, left_out


def _entry(name: str, entry: Any) -> tuple[str, float, float]:
    """Direction and limits of an entry of the var."""
    known = isinstance(entry, dict) and set(entry) <= {"direction", "least", "most"}
    if not known or entry.get("direction") not in ("up", "down"):
        raise LcmError(
            f"actionable_features.{name} is {json.dumps(entry)}, and takes direction (up or down), least and most", MEND
        )
    limits = entry.get("least", -np.inf), entry.get("most", np.inf)
    if not all(isinstance(limit, (int, float)) for limit in limits):
        raise LcmError(f"actionable_features.{name}: least and most are numbers", MEND)
    return entry["direction"], float(limits[0]), float(limits[1])


def _twin(data: pl.DataFrame, mine: FloatArray, others: Sequence[str]) -> str | None:
    """A feature, of these, that says the same."""
    for other in others:
        theirs = _floats(data.get_column(other))
        both = np.isfinite(mine) & np.isfinite(theirs)
        a, b = mine[both], theirs[both]
        if len(a) > 2 and a.std() > 0 and b.std() > 0 and abs(np.corrcoef(a, b)[0, 1]) > SAME:
            return other
    return None


def _common(known: FloatArray, least: float, most: float) -> FloatArray:
    """The values that occur within the limits; where they are many, every twentieth user lies beyond either end."""
    distinct = np.unique(known)
    if len(distinct) > COARSE_VALUES:
        low, high = np.quantile(known, [0.05, 0.95], method="nearest")
        least, most = max(least, low), min(most, high)
    return distinct[(distinct >= least) & (distinct <= most)]


def _thinned(values: FloatArray, most: int) -> FloatArray:
    """At most so many of these values, evenly chosen, both ends among them."""
    if len(values) <= most:
        return values
    return values[np.linspace(0, len(values) - 1, most).round().astype(np.int64)]


def _floats(values: pl.Series) -> FloatArray:
    return np.array(values.cast(pl.Float64).fill_null(np.nan).to_numpy(), dtype=np.float64)


def _parts(rows: int, size: int) -> list[Indices]:
    return [np.arange(start, min(start + size, rows)) for start in range(0, rows, size)]


Moves = tuple[tuple[int, float, float], ...]
"""Changes of one user: which lever, from, to."""


class _Search:
    """The search over some users in the band."""

    def __init__(self, model: ChurnModel, data: pl.DataFrame, levers: Sequence[Lever], high: float) -> None:
        self.model = model
        self.levers = levers
        self.high = high
        self.x: FloatMatrix = model.encoding.matrix(data)
        numbers = [name for name, kind in data.schema.items() if kind.is_numeric()]
        self.values: Values = {
            name: _floats(data.get_column(name)) for name in needed(numbers, [lever.feature for lever in levers])
        }
        self.places = {name: index for index, name in enumerate(model.encoding.names) if name in self.values}

    def run(self) -> tuple[FloatArray, list[Moves]]:
        """The probability after the smallest change (NaN where there is none) and the change, for each user."""
        users = len(self.x)
        after = np.full(users, np.nan)
        moves: list[Moves] = [()] * users
        strength = np.full((users, len(self.levers)), np.inf)
        cost = np.full(users, np.inf)
        for index in range(len(self.levers)):
            strength[:, index] = self._improve((index,), np.arange(users), cost, after, moves)
        strongest = np.argsort(strength, axis=1, kind="stable")[:, :MOST_CHANGES]
        usable = np.isfinite(np.take_along_axis(strength, strongest, axis=1))
        for size in range(2, MOST_CHANGES + 1):
            open_ = np.isnan(after)
            for group in itertools.combinations(range(len(self.levers)), size):
                theirs = np.isin(strongest, group) & usable
                positions = np.flatnonzero(open_ & (theirs.sum(axis=1) == size))
                if len(positions):
                    self._improve(group, positions, cost, after, moves)
        return after, moves

    def _improve(
        self,
        group: tuple[int, ...],
        positions: Indices,
        cost: FloatArray,
        after: FloatArray,
        moves: list[Moves],
    ) -> FloatArray:
        """Try all targets of these levers together; keep what leaves the band for less than what is known.

        Returns:
            The lowest probability of each position, infinite where nothing could be tried.
        """
        levers = [self.levers[index] for index in group]
        targets = [lever.targets if len(levers) == 1 else lever.coarse for lever in levers]
        tuples = np.array(list(itertools.product(*targets)))
        lowest = np.full(len(positions), np.inf)
        if not len(tuples):
            return lowest
        for part in _parts(len(positions), max(BATCH // len(tuples), 1)):
            who = positions[part]
            probability = self._predict(who, levers, tuples)
            lowest[part] = probability.min(axis=1)
            before = [self.values[lever.feature][who] for lever in levers]
            ranks = [lever.rank(own) for lever, own in zip(levers, before, strict=True)]
            total = np.sum(
                [np.abs(lever.rank(tuples[:, k])[None, :] - ranks[k][:, None]) for k, lever in enumerate(levers)],
                axis=0,
            ).round(9)
            total[probability >= self.high] = np.inf
            best = total.argmin(axis=1)
            for row in np.flatnonzero(total.min(axis=1) < cost[who]):
                position, choice = who[row], best[row]
                cost[position] = total[row, choice]
                after[position] = probability[row, choice]
                moves[position] = tuple(
                    (index, float(before[k][row]), float(tuples[choice, k])) for k, index in enumerate(group)
                )
        return lowest

    def _predict(self, rows: Indices, levers: Sequence[Lever], tuples: FloatArray) -> FloatArray:
        """Probabilities of each user with each tuple of targets, infinite where the move is not allowed.

        Returns:
            Shape (rows, tuples).
        """
        repeated = np.repeat(rows, len(tuples))
        targets = np.tile(tuples, (len(rows), 1))
        values = {name: column[repeated] for name, column in self.values.items()}
        allowed = np.ones(len(repeated), dtype=bool)
        now = values
        for k, lever in enumerate(levers):
            allowed &= lever.allows(values[lever.feature], targets[:, k])
            now = settle(now, lever.feature, targets[:, k])
        allowed &= possible(now)
        found = np.full(len(repeated), np.inf)
        if allowed.any():
            x = self.x[repeated[allowed]]
            for name, place in self.places.items():
                if now[name] is not values[name]:
                    x[:, place] = now[name][allowed]
            found[allowed] = self.model.predict_encoded(x)
        return found.reshape(len(rows), len(tuples))


def _told(moves: Moves, levers: Sequence[Lever], schema: pl.Schema) -> tuple[int, str, str]:
    """Number of changes, the changes as JSON, and in words."""
    changes, words = {}, []
    for index, before, target in moves:
        feature = levers[index].feature
        whole = schema[feature].is_integer()
        ends = [int(value) if whole else value for value in (before, target)]
        changes[feature] = ends
        words.append(phrase(feature).change(*ends))
    return len(moves), json.dumps(changes), "; ".join(words) or "nothing that can be influenced leaves the band"
