"""Effects of arms against control: differences of means or of ratios, adjusted by what was known before.

Each user's contribution to its arm's figure is taken to first order (the delta method for ratios: Deng, Knoblich and Lu
2018), and what covariates from before the assignment explain of it is taken off. With the same metric before as the
covariate this is CUPED (Deng, Xu, Kohavi and Walker 2013); with the strata as well it gives the variance that a
stratified assignment really has (Lin 2013; Bugni, Canay and Shaikh 2018).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Effects:
    """Figures of all arms, control first; the effects are those of the other arms.

    Attributes:
        users: (arms,) users.
        means: (arms,) means, or ratios of sums, after adjustment: an effect is the difference of two.
        effects: (arms - 1,) arm less control.
        errors: (arms - 1,) standard errors of the effects.
        p_values: (arms - 1,) two-sided, by Welch's t; NaN where there is nothing to compare.
        degrees: (arms - 1,) degrees of freedom (Satterthwaite).
        relative: (arms - 1,) effect over control's mean; NaN where that is 0.
        relative_errors: (arms - 1,) standard errors of that, delta method.
        reductions: (arms - 1,) share of the variance of a plain comparison that the adjustment took off.
        contributions: (arms - 1, n) what each user adds to the error of each effect; their sum of squares is the
            variance. Two looks' contributions tell how the looks go together.
    """

    users: Ints
    means: Floats
    effects: Floats
    errors: Floats
    p_values: Floats
    degrees: Floats
    relative: Floats
    relative_errors: Floats
    reductions: Floats
    contributions: Floats


def compare_arms(
    value: npt.ArrayLike,
    arm: npt.ArrayLike,
    arms: int,
    covariates: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
) -> Effects:
    """Compare each arm with control.

    Args:
        value: (n,) each user's figure.
        arm: (n,) 0 for control, 1 to arms - 1 for the others.
        arms: number of arms.
        covariates: (n, k) known before the assignment. Columns that tell nothing are harmless.
        weight: (n,) each user's denominator, for a ratio of sums; a mean where None.
    """
    from scipy.special import stdtr

    y, group = np.asarray(value, dtype=float), np.asarray(arm, dtype=np.int64)
    x = np.ones_like(y) if weight is None else np.asarray(weight, dtype=float)
    users = np.bincount(group, minlength=arms)
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.bincount(group, x, arms) / users
        means = np.bincount(group, y, arms) / users / level
        residual = (y - means[group] * x) / level[group]
        plain = _variances(residual, group, users, 0)
        if covariates is not None:
            means, residual, used = _adjust(means, residual, group, users, np.asarray(covariates, dtype=float))
        else:
            used = 0
        variances = _variances(residual, group, users, used)
        total = variances[1:] + variances[0]
        errors = np.sqrt(total)
        effects = means[1:] - means[0]
        # A variance of 0 on both sides tells nothing, rather than everything.
        z = np.where(errors > 0, effects / errors, np.nan)
        degrees = total**2 / (variances[1:] ** 2 / (users[1:] - 1) + variances[0] ** 2 / (users[0] - 1))
        ratio = means[1:] / means[0]
        relative_errors = np.sqrt(variances[1:] + ratio**2 * variances[0]) / np.abs(means[0])
        plain_total = plain[1:] + plain[0]
        reductions = np.where(plain_total > 0, 1 - total / plain_total, 0.0)
        relative = np.where(means[0] != 0, ratio - 1, np.nan)
        p_values = np.where(users[1:] > 1, 2 * stdtr(degrees, -np.abs(z)), np.nan)
        scaled = residual / users[group]
    signs = np.array([(group == other).astype(float) - (group == 0) for other in range(1, arms)])
    return Effects(
        users, means, effects, errors, p_values, degrees, relative, relative_errors, reductions, signs * scaled
    )


def pre_period(value: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> Floats:
    """The covariate of CUPED: a metric in the pre-period, user by user, linear to first order for a ratio.

    Args:
        value: (n,) as in `compare_arms`, before the assignment.
        weight: (n,) likewise.

    Returns:
        (n,), zeros where a ratio has no denominator.
    """
    y = np.asarray(value, dtype=float)
    if weight is None:
        return y
    x = np.asarray(weight, dtype=float)
    total = x.sum()
    return (y - y.sum() / total * x) / (total / len(x)) if total else np.zeros_like(y)


def strata_columns(strata: npt.ArrayLike, smallest: int) -> Floats:
    """One column of 0 and 1 for each stratum but the first; those below `smallest` users are one together.

    Returns:
        (n, strata - 1).
    """
    _, code, size = np.unique(np.asarray(strata, dtype=str), return_inverse=True, return_counts=True)
    merged = np.where(size < smallest, -1, np.arange(len(size)))[code]
    levels = np.unique(merged)[1:]
    return np.asarray(merged[:, None] == levels[None, :], dtype=float)


def _variances(residual: Floats, group: Ints, users: Ints, used: int) -> Floats:
    """Variances of the arms' figures; `used` coefficients were fitted to all users together."""
    squares = np.bincount(group, residual**2, len(users))
    lost = 1 + used * users / users.sum()
    return np.asarray(np.where(users > lost, squares / (users - lost) / users, np.nan), dtype=float)


def _adjust(
    means: Floats, residual: Floats, group: Ints, users: Ints, covariates: Floats
) -> tuple[Floats, Floats, int]:
    """Take off what covariates explain, with one slope for all arms, fitted within them."""
    if not covariates.shape[1]:
        return means, residual, 0
    sums = np.stack([np.bincount(group, column, len(users)) for column in covariates.T], axis=1)
    centres = sums / users[:, None]
    within = covariates - centres[group]
    scale = np.sqrt((within**2).mean(axis=0))
    keep = scale > 1e-9 * (1 + np.abs(covariates).max(axis=0, initial=0.0))
    if not keep.any():
        return means, residual, 0
    within, scale = within[:, keep] / scale[keep], scale[keep]
    # The smallest norm, where columns repeat each other.
    slope, _, rank, _ = np.linalg.lstsq(within, np.nan_to_num(residual), rcond=None)
    moved = (centres[:, keep] - covariates[:, keep].mean(axis=0)) / scale
    return means - moved @ slope, residual - within @ slope, int(rank)
