"""A measure: what the project takes beside a named reference, in turns, in one run."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Measure:
    """Ours over the reference, round by round.

    Attributes:
        name: a word or two, the key in the summary.
        what: what is measured, against what.
        goal: the ratio to reach; None where there is none.
        ours, reference: seconds (or bytes) of each round.
        higher_is_better: the ratio says how many times faster ours is, rather than how much longer it takes.
        note: what the reader must know beside the ratio.
    """

    name: str
    what: str
    goal: float | None
    ours: list[float]
    reference: list[float]
    higher_is_better: bool = False
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ratios(self) -> list[float]:
        """One for each round."""
        pairs = list(zip(self.ours, self.reference, strict=True))
        return [theirs / mine if self.higher_is_better else mine / theirs for mine, theirs in pairs]

    @property
    def ratio(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.ratios)

    @property
    def reached(self) -> bool | None:
        """Whether the goal is; None where there is none."""
        if self.goal is None:
            return None
        return self.ratio >= self.goal if self.higher_is_better else self.ratio <= self.goal

    def to_dict(self) -> dict[str, Any]:
        """For the results' JSON."""
        return asdict(self) | {
            "ratio": self.ratio,
            "least": min(self.ratios),
            "most": max(self.ratios),
            "reached": self.reached,
        }


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_bytes(pid: int | str = "self") -> int:
    """The most bytes that a running process has held. Not ru_maxrss, which begins with what its parent held."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(text.split("VmHWM:")[1].split()[0]) * 1024


def in_turns(rounds: int, *works: Callable[[], float]) -> list[list[float]]:
    """Run each work in every round, one after the other, so that a busy machine slows all of them alike.

    Each work returns its own seconds, so that what it prepares does not count.
    """
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for own, work in zip(taken, works, strict=True):
            own.append(work())
    return taken
