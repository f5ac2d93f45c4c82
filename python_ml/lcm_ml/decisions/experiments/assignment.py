"""Who gets which arm: decided by a hash, so that nobody can choose and everybody can check.

SHA-256 of the salt and the user_id gives each user a place between 0 and 1, and the arms share that interval. Users
that are assigned together are put in the order of their places within their stratum and spread evenly, so that arms
differ by at most one user of a stratum (for equal shares). Users that come later take the arm of their own place.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

SEPARATOR = " | "
"""Between the parts of a stratum."""


def places(salt: str, user_ids: Iterable[str]) -> npt.NDArray[np.float64]:
    """A place in [0, 1) for each user, the same wherever it is computed; other salts give unrelated places.

    Returns:
        (n,): the first 53 bits of SHA-256 of "salt:user_id", over 2^53.
    """
    start = hashlib.sha256(f"{salt}:".encode())

    def place(user_id: str) -> float:
        digest = start.copy()
        digest.update(user_id.encode())
        return float((int.from_bytes(digest.digest()[:8], "big") >> 11) / 2**53)

    return np.array([place(user_id) for user_id in user_ids], dtype=float)


def assign(
    users: pl.DataFrame, salt: str, arms: Sequence[str], shares: Sequence[float], *, together: bool
) -> pl.DataFrame:
    """Give each user an arm.

    Args:
        users: user_id, stratum.
        salt: of the experiment.
        arms: names, control first.
        shares: of the arms, summing to 1.
        together: the whole population at once, balanced within each stratum; where false, each user by itself.

    Returns:
        user_id, stratum, arm, place, method (balanced or hash), sorted by user_id.
    """
    placed = users.with_columns(place=pl.Series(places(salt, users["user_id"].to_list()), dtype=pl.Float64))
    if together:
        strata = placed["stratum"].unique().sort()
        # Which arms get the users that are left over is drawn for each stratum, or control would get them all.
        offset = pl.DataFrame(
            {"stratum": strata, "offset": places(f"{salt}:stratum", strata.to_list())},
            schema={"stratum": pl.String, "offset": pl.Float64},
        )
        placed = placed.join(offset, on="stratum", how="left").sort("place", "user_id")
        rank = pl.int_range(pl.len()).over("stratum")
        position = (rank + pl.col("offset")) / pl.len().over("stratum")
    else:
        position = pl.col("place")
    edges = np.cumsum(shares)[:-1]
    arm = pl.lit(arms[0])
    for name, edge in zip(arms[1:], edges, strict=True):
        arm = pl.when(position >= float(edge)).then(pl.lit(name)).otherwise(arm)
    return (
        placed.with_columns(arm=arm, method=pl.lit("balanced" if together else "hash"))
        .select("user_id", "stratum", "arm", "place", "method")
        .sort("user_id")
    )


def within_slot(users: pl.DataFrame, layer: str, slot: tuple[float, float]) -> pl.DataFrame:
    """The users whose place in the layer lies in the slot: experiments of a layer share nobody."""
    place = places(f"layer:{layer}", users["user_id"].to_list())
    return users.filter(pl.Series((place >= slot[0]) & (place < slot[1]), dtype=pl.Boolean))


def free_slot(taken: Sequence[tuple[float, float]], width: float) -> tuple[float, float] | None:
    """The lowest interval of this width in [0, 1) that overlaps none of `taken`; None where there is none."""
    low = 0.0
    for start, end in sorted(taken):
        if low + width <= start + 1e-9:
            break
        low = max(low, end)
    return (low, min(1.0, low + width)) if low + width <= 1 + 1e-9 else None
