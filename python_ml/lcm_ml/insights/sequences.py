"""Sequences of steps before an outcome: who took them, and to how many of those it came."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from lcm_ml.insights.intervals import Z
from lcm_ml.insights.significance import LEVEL, benjamini_hochberg, fisher_either

MIN_USERS, MIN_SHARE = 10, 0.01
"""A sequence is tested when at least so many users, and this share of them, have it, and as many have not."""
MIN_OUTCOMES = 10
MAX_LENGTH = 3
CHUNK = 20_000
"""Users whose sequences are in memory at a time: at most 12 steps make 298 sequences with gaps a user."""
MOST = 500
"""Sequences told of an outcome and kind."""
NEXT, LATER = " > ", " ... "

LIFTS = {
    "sequence": pl.String,
    "length": pl.Int32,
    "users_with": pl.Int64,
    "users_without": pl.Int64,
    "rate_with": pl.Float64,
    "rate_without": pl.Float64,
    "lift": pl.Float64,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "p_value": pl.Float64,
}


@dataclass(frozen=True)
class Pattern:
    """States in order: next to each other, or with others between them or not."""

    states: tuple[str, ...]
    is_adjacent: bool

    def __str__(self) -> str:
        return (NEXT if self.is_adjacent else LATER).join(self.states)

    def simpler(self) -> Iterator["Pattern"]:
        """What everybody with this pattern has too, one step of simplification away."""
        n = len(self.states)
        if n == 1:
            return
        if self.is_adjacent:
            yield Pattern(self.states, False)
            shorter = {self.states[1:], self.states[:-1]}
        else:
            shorter = {self.states[:place] + self.states[place + 1 :] for place in range(n)}
        for states in shorter:
            yield Pattern(states, self.is_adjacent or n == 2)


def sequence_lifts(steps: pl.DataFrame, outcomes: pl.DataFrame, max_length: int = MAX_LENGTH) -> pl.DataFrame:
    """Every sequence that enough users have, with how often the outcome came to those with and without it.

    The lift is a risk ratio with the interval of Katz and others (1978, Biometrics 34), half an outcome added to each
    cell where one is empty; the p-value is that of Fisher's exact test, two-sided. A sequence is left out when a
    simpler one, which all its users have too, has at least its lift (or for lifts below 1, at most).

    Args:
        steps: subject, position and state; positions of a subject are 1, 2, 3 ... without gaps.
        outcomes: subject and outcome (Boolean), one row each; subjects without steps count among those without.
        max_length: of a sequence.

    Returns:
        Columns LIFTS, and `tested`: how many sequences were tested, for `rank_lifts`. Empty where fewer than
        MIN_OUTCOMES users had the outcome, or had it not.
    """
    users, happened = outcomes.height, int(outcomes["outcome"].sum())
    empty = pl.DataFrame(schema={**LIFTS, "tested": pl.Int64})
    least = max(MIN_USERS, int(np.ceil(MIN_SHARE * users)))
    if min(happened, users - happened) < MIN_OUTCOMES or users < 2 * least:
        return empty
    counted = {
        pattern: (n, hits)
        for pattern, (n, hits) in _count(steps, outcomes, least, max_length).items()
        if least <= n <= users - least
    }
    if not counted:
        return empty
    patterns = list(counted)
    n = np.array([counted[pattern][0] for pattern in patterns])
    hits = np.array([counted[pattern][1] for pattern in patterns])
    lift, low, high = risk_ratio(hits, n, happened - hits, users - n)
    lift_of = dict(zip(patterns, lift.tolist(), strict=True))
    frame = pl.DataFrame(
        {
            "sequence": [str(pattern) for pattern in patterns],
            "length": [len(pattern.states) for pattern in patterns],
            "users_with": n,
            "users_without": users - n,
            "rate_with": hits / n,
            "rate_without": (happened - hits) / (users - n),
            "lift": lift,
            "ci_low": low,
            "ci_high": high,
            "p_value": fisher_either(hits, n, happened, users),
        },
        schema=LIFTS,
    ).with_columns(pl.col("lift").replace(float("inf"), None), tested=pl.lit(len(patterns), pl.Int64))
    return frame.filter([not _is_redundant(pattern, lift_of) for pattern in patterns])


def risk_ratio(
    hits: np.ndarray, n: np.ndarray, other_hits: np.ndarray, other_n: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """hits / n over other_hits / other_n with its 95 % interval; infinite where only other_hits is 0."""
    spare = np.where((hits == 0) | (other_hits == 0), 0.5, 0.0)
    a, b = hits + spare, other_hits + spare
    log_ratio = np.log(a / (n + spare)) - np.log(b / (other_n + spare))
    half = Z * np.sqrt(1 / a - 1 / (n + spare) + 1 / b - 1 / (other_n + spare))
    with np.errstate(divide="ignore"):
        ratio = (hits / n) / (other_hits / other_n)
    return ratio, np.exp(log_ratio - half), np.exp(log_ratio + half)


def rank_lifts(kinds: dict[str, pl.DataFrame], level: float = LEVEL) -> pl.DataFrame:
    """Lifts of one outcome by kind of steps in one table, corrected for all that were tested.

    Args:
        kinds: step_kind to what sequence_lifts found.
        level: the false discovery rate.

    Returns:
        LIFTS, step_kind, q_value, is_significant and lift_rank, MOST of each kind: significant ones first, of them
        those with more of the outcome, of them the surest.
    """
    found = pl.concat([rows.with_columns(step_kind=pl.lit(kind)) for kind, rows in kinds.items()])
    tests = int(pl.concat(rows["tested"].head(1) for rows in kinds.values()).sum())
    # The end of the interval that is nearer to 1; an interval that holds 1 says nothing.
    surest = pl.max_horizontal(pl.col("ci_low").log(), -pl.col("ci_high").log(), 0.0)
    return (
        found.with_columns(q_value=pl.Series(benjamini_hochberg(found["p_value"].to_numpy(), tests), dtype=pl.Float64))
        .with_columns(is_significant=pl.col("q_value") <= level)
        .sort(
            ~pl.col("is_significant"),
            pl.col("rate_with") < pl.col("rate_without"),
            -surest,
            "p_value",
            "step_kind",
            "sequence",
        )
        .filter(pl.int_range(pl.len()).over("step_kind") < MOST)
        .with_columns(lift_rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32))
        .drop("tested")
    )


def _is_redundant(pattern: Pattern, lift_of: dict[Pattern, float]) -> bool:
    lift = lift_of[pattern]
    waiting, seen = list(pattern.simpler()), set()
    while waiting:
        other = waiting.pop()
        if other in seen:
            continue
        seen.add(other)
        other_lift = lift_of.get(other)
        if other_lift is not None and (other_lift >= lift if lift >= 1 else other_lift <= lift):
            return True
        waiting += other.simpler()
    return False


def _count(steps: pl.DataFrame, outcomes: pl.DataFrame, least: int, max_length: int) -> dict[Pattern, tuple[int, int]]:
    """Users with each sequence, and how many of them had the outcome; states that too few users have are no start."""
    often = (
        steps.group_by("state").agg(users=pl.col("subject").n_unique()).filter(pl.col("users") >= least)["state"].sort()
    )
    names = often.to_list()
    # Positions stay as they were: a rare state between two others keeps them apart.
    coded = (
        steps.filter(pl.col("state").is_in(names))
        .with_columns(code=pl.col("state").replace_strict(names, range(len(names)), return_dtype=pl.Int32))
        .select("subject", pl.col("position").cast(pl.Int32), "code")
        .join(outcomes.select("subject", "outcome"), on="subject")
    )
    subjects = coded["subject"].unique().sort()
    parts = []
    for place in range(0, len(subjects), CHUNK):
        part = coded.filter(pl.col("subject").is_in(subjects[place : place + CHUNK].implode()))
        for is_adjacent in (True, False):
            parts += [rows.with_columns(is_adjacent=is_adjacent) for rows in _levels(part, is_adjacent, max_length)]
    if not parts:
        return {}
    codes = [f"s{k}" for k in range(max_length)]
    total = (
        pl.concat(parts, how="diagonal")
        .group_by("is_adjacent", *codes)
        .agg(pl.col("users").sum(), pl.col("hits").sum())
        .filter(pl.col("users") >= least)
        .sort("is_adjacent", *codes, nulls_last=False)
    )
    return {
        Pattern(tuple(names[code] for code in row[1 : 1 + max_length] if code is not None), row[0]): (row[-2], row[-1])
        for row in total.iter_rows()
    }


def _levels(part: pl.DataFrame, is_adjacent: bool, max_length: int) -> Iterator[pl.DataFrame]:
    """Counts of the sequences of each length among some users. Sequences of one step count as adjacent."""
    single = part.select("subject", "outcome", "position", s0="code")
    step = part.select("subject", next_position="position", next_code="code")
    found = single if is_adjacent else single.group_by("subject", "outcome", "s0").agg(pl.col("position").min())
    codes = ["s0"]
    if is_adjacent:
        yield _users(found, codes)
    for length in range(1, max_length):
        joined = found.join(step, on="subject")
        gap = pl.col("next_position") - pl.col("position")
        joined = joined.filter(gap == 1 if is_adjacent else gap > 0)
        codes = [*codes, f"s{length}"]
        renamed = joined.select(
            "subject", "outcome", *codes[:-1], position="next_position", **{codes[-1]: pl.col("next_code")}
        )
        # With others in between, the earliest end is the one that the most can follow.
        found = renamed if is_adjacent else renamed.group_by("subject", "outcome", *codes).agg(pl.col("position").min())
        yield _users(found, codes)


def _users(found: pl.DataFrame, codes: list[str]) -> pl.DataFrame:
    once = found.select("subject", "outcome", *codes).unique()
    return once.group_by(codes).agg(users=pl.len(), hits=pl.col("outcome").sum())
