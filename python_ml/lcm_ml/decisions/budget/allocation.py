"""The allocation of a budget as a linear programme, solved by HiGHS.

Options are a user, an offer and a channel each. The programme maximises the profit of the options taken, where a user
has at most one, their cost stays within the budget, and no channel carries more than it can. Only those limits couple
users, so that at most as many users as there are limits come out fractional;
what these leave goes to the users who still fit.

The whole programme takes HiGHS minutes for some ten thousand users. What makes a million possible is that prices of the
few limits decide nearly every user alone (Dantzig and Wolfe 1960): prices are found first, each user takes what pays
most at them, and HiGHS solves the programme exactly for the users who are near a tie. By duality the prices bound what
any allocation can bring; where that bound is not met, more users join the programme, in the end all.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import OptimizeResult, linprog
from scipy.sparse import coo_array, csr_array, vstack

from lcm_ml.churn.estimator import FloatArray
from lcm_ml.errors import LcmError

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

CORE_USERS = 500
"""Users whose choice HiGHS decides at first."""
PRICES_WITHIN, OPTIMAL_WITHIN = 1e-6, 1e-5
"""Shares of the profit that the bound may lie above a mix of allocations, and above the optimum found."""
MOST_ROUNDS = 200
WHOLE = 1e-6
GOLDEN = (5**0.5 - 1) / 2
"""Its multiples spread evenly between whole numbers."""


@dataclass(frozen=True)
class Options:
    """Options sorted by user; shape (options,) each.

    Attributes:
        user: number of the user, from 0.
        channel: number of the channel, from 0.
        cost: money that it takes from the budget, at least 0.
        profit: what it is expected to bring, costs deducted.
    """

    user: IntArray
    channel: IntArray
    cost: FloatArray
    profit: FloatArray

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: IntArray | BoolArray) -> "Options":
        """Some of the options."""
        return Options(self.user[rows], self.channel[rows], self.cost[rows], self.profit[rows])


@dataclass(frozen=True)
class Allocation:
    """Options taken, as positions in increasing order; what none can exceed; and the profit of one more unit of budget.

    `upper_bound` is the optimum of the linear programme, before the fractional users are rounded.
    """

    chosen: IntArray
    upper_bound: float
    shadow_price: float


class Allocator:
    """Allocations of the same options under different budgets.

    Args:
        options: what can be done.
        capacity: most options of each channel, shape (channels,); infinite where there is no limit.
    """

    def __init__(self, options: Options, capacity: FloatArray) -> None:
        limited = np.flatnonzero(np.bincount(options.channel, minlength=len(capacity)) > capacity)
        line = np.zeros(len(capacity), dtype=np.int64)
        line[limited] = np.arange(1, len(limited) + 1)
        self._kept = np.flatnonzero(worth_a_look(options, line))
        self._options = options.take(self._kept)
        self._line = line[self._options.channel]
        self._capacity = np.floor(capacity[limited])
        self._user = np.unique(self._options.user, return_inverse=True)[1]
        self._starts = np.flatnonzero(np.r_[True, np.diff(self._user) > 0]) if len(self._kept) else self._kept
        # Each allocation that prices led to, as its profit and what it uses of each limit. The first does nothing.
        self._prices: list[FloatArray] = []
        self._profits = [0.0]
        self._uses = [np.zeros(1 + len(limited))]

    def at(self, budget: float) -> Allocation:
        """The best allocation under a budget.

        Raises:
            LcmError: when HiGHS finds no solution.
        """
        if not len(self._kept):
            return Allocation(self._kept, 0.0, 0.0)
        limits = np.r_[min(budget, float(self._options.cost.sum()) + 1.0), self._capacity]
        choice, margin = self._by_prices(limits)
        users = CORE_USERS
        while (found := self._solve(_first(margin, users), choice, limits)) is None:
            users *= 4
        return found

    def _reduced(self, prices: FloatArray) -> FloatArray:
        line_prices = np.r_[0.0, prices[1:]]
        return np.asarray(self._options.profit - prices[0] * self._options.cost - line_prices[self._line])

    def _best(self, reduced: FloatArray) -> tuple[IntArray, float]:
        """The option that pays each user most, if any does, and what all of them pay."""
        best = np.maximum.reduceat(reduced, self._starts)
        rows = np.flatnonzero((reduced == best[self._user]) & (reduced > 0))
        rows = rows[np.diff(self._user[rows], prepend=-1) > 0]
        return rows, float(best.clip(0).sum())

    def _used(self, rows: IntArray) -> FloatArray:
        lines = np.bincount(self._line[rows], minlength=1 + len(self._capacity))
        return np.asarray(np.r_[self._options.cost[rows].sum(), lines[1:]])

    def _bound(self, prices: FloatArray, limits: FloatArray) -> float:
        return float(prices @ limits) + self._best(self._reduced(prices))[1]

    def _by_prices(self, limits: FloatArray) -> tuple[IntArray, FloatArray]:
        """What nearly optimal prices of the limits make of each user.

        Returns:
            The option of each user (-1: none), and how much separates it from the user's next best.
        """
        for _ in range(MOST_ROUNDS):
            mix = _solved(
                -np.array(self._profits), csr_array(np.array(self._uses).T), limits, np.ones((1, len(self._profits)))
            )
            prices = (-mix.ineqlin.marginals).clip(0)
            rows, paid = self._best(self._reduced(prices))
            if prices @ limits + paid + mix.fun <= PRICES_WITHIN * -mix.fun:
                break
            self._prices.append(prices)
            self._profits.append(float(self._options.profit[rows].sum()))
            self._uses.append(self._used(rows))
        reduced = self._reduced(prices)
        best = np.maximum.reduceat(reduced, self._starts)
        reduced[rows] = -np.inf
        margin = np.where(best > 0, best - np.maximum.reduceat(reduced, self._starts).clip(0), -best)
        # Users whom the mixed allocations treat differently are at a tie, often very many of them: two channels that
        # differ in nothing but a cost. Each takes one of the allocations, in the proportions that keep the limits.
        support = np.flatnonzero(mix.x > WHOLE)
        choices = np.stack([self._choice(place) for place in support.tolist()])
        drawn = np.searchsorted(mix.x[support].cumsum()[:-1], self._spread(choices[0], choices[-1]))
        choice = choices[drawn, np.arange(choices.shape[1])]
        tied = (choices != choices[0]).any(axis=0)
        return choice, np.where(tied, 0.0, margin)

    def _spread(self, one: IntArray, other: IntArray) -> FloatArray:
        """A number between 0 and 1 for each user, evenly spread among those to whom the two choices mean the same.

        Any part of the users by these numbers then uses its share of each limit, and brings its share of the profit.
        """
        known = (
            np.r_[of, nothing] for of, nothing in ((self._line, -1), (self._options.cost, 0), (self._options.profit, 0))
        )
        lines, costs, profits = ([values[one], values[other]] for values in known)
        order = np.lexsort((profits[1] - profits[0], costs[1] - costs[0], *lines))
        spread = np.empty(len(order))
        spread[order] = np.arange(len(order)) * GOLDEN % 1
        return spread

    def _choice(self, place: int) -> IntArray:
        """Option of each user in the allocation that a round led to; -1 is none."""
        choice = np.full(len(self._starts), -1)
        if place:
            rows, _ = self._best(self._reduced(self._prices[place - 1]))
            choice[self._user[rows]] = rows
        return choice

    def _solve(self, core: BoolArray, choice: IntArray, limits: FloatArray) -> Allocation | None:
        """Solve for the users of the core, the others as chosen; None where that is not the optimum."""
        in_core = core[self._user]
        fixed = choice[~core & (choice >= 0)]
        left = limits - self._used(fixed)
        if (left < 0).any():
            return None
        inside = np.flatnonzero(in_core)
        one_each = _incidence(np.unique(self._user[inside], return_inverse=True)[1])
        lines = _incidence(self._line[inside], 1 + len(self._capacity)).tocsr()[1:]
        uses = vstack([csr_array(self._options.cost[inside][None]), lines, one_each], format="csr")
        most = np.r_[left, np.ones(one_each.shape[0])]
        solution = _solved(-self._options.profit[inside], uses, most)
        found = (-solution.ineqlin.marginals[: len(limits)]).clip(0)
        bound = self._bound(found, limits)
        profit = float(self._options.profit[fixed].sum()) - solution.fun
        if bound - profit > OPTIMAL_WITHIN * bound and not core.all():
            return None
        chosen = np.r_[fixed, inside[solution.x > 1 - WHOLE]]
        chosen = np.r_[chosen, self._fitting(inside, chosen, limits)]
        return Allocation(np.sort(self._kept[chosen]), min(bound, profit) if core.all() else bound, float(found[0]))

    def _fitting(self, candidates: IntArray, chosen: IntArray, limits: FloatArray) -> IntArray:
        """Of the users who go without, fractional ones among them, who still fits, largest profit first."""
        left = limits - self._used(chosen)
        waiting = candidates[~np.isin(self._user[candidates], self._user[chosen])]
        waiting = waiting[self._options.cost[waiting] <= left[0]]
        added: list[int] = []
        users: set[int] = set()
        for row in waiting[np.argsort(-self._options.profit[waiting], kind="stable")].tolist():
            use = self._used(np.array([row]))
            if self._user[row] not in users and (use <= left).all():
                added.append(row)
                users.add(int(self._user[row]))
                left = left - use
        return np.array(added, dtype=np.int64)


def worth_a_look(options: Options, line: IntArray) -> BoolArray:
    """Options with a profit, where the user has none that is as good, costs no more and uses no scarcer channel.

    Args:
        options: sorted by user.
        line: of each channel, its number among those with a limit; 0 for the others, shape (channels,).
    """
    places = np.flatnonzero(options.profit > 0)
    own = options.take(places)
    lines = line[own.channel]
    order = np.lexsort((-own.profit, own.cost, lines, own.user))
    user, lines, profit = own.user[order], lines[order], own.profit[order]
    beaten = np.zeros(len(order), dtype=bool)
    for step in range(1, len(order)):
        same = (user[step:] == user[:-step]) & (lines[step:] == lines[:-step])
        if not same.any():
            break
        beaten[step:] |= same & (profit[:-step] >= profit[step:])
    kept = np.zeros(len(options), dtype=bool)
    kept[places[order[~beaten]]] = True
    return kept


def _first(margin: FloatArray, count: int) -> BoolArray:
    """The users with the least margin; of those at a tie every so manieth, so that the rest has room too."""
    tied = np.flatnonzero(margin == 0)
    order = np.r_[tied[np.argsort(tied * GOLDEN % 1)][: count // 2], np.argsort(margin)[len(tied) :]]
    taken = np.zeros(len(margin), dtype=bool)
    taken[order[:count] if count < len(margin) else slice(None)] = True
    return taken


def _incidence(group: IntArray, count: int | None = None) -> coo_array:
    height = count if count is not None else int(group.max(initial=-1)) + 1
    return coo_array((np.ones(len(group)), (group, np.arange(len(group)))), shape=(height, len(group)))


def _solved(costs: FloatArray, uses: csr_array, limits: FloatArray, equal: FloatArray | None = None) -> OptimizeResult:
    ones = None if equal is None else np.ones(len(equal))
    solution = linprog(costs, uses, limits, equal, ones, bounds=(0, None), method="highs")
    if solution.status != 0:
        raise LcmError(f"HiGHS found no allocation of the budget: {solution.message}", "look at the costs in the seeds")
    return solution
