"""What an uplift model learns from: users, who of them was treated, and what they did."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lcm_ml.churn.encoding import FloatMatrix
from lcm_ml.churn.estimator import FloatArray

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Trial:
    """Rows of a campaign, or of several. Arrays have shape (rows,).

    Attributes:
        x: features as known before the touch, shape (rows, features); NaN is missing.
        treated: 1.0 or 0.0.
        outcome: a purchase (0.0 or 1.0), or orders or money.
        propensity: probability of the treatment given the features, inside 0 to 1.
        user: number of the user; rows of one user stay together in folds and resamples.
        is_binary: the outcome is 0 or 1.
    """

    x: FloatMatrix
    treated: FloatArray
    outcome: FloatArray
    propensity: FloatArray
    user: IntArray
    is_binary: bool = True

    def __len__(self) -> int:
        return len(self.treated)

    def take(self, rows: BoolArray) -> "Trial":
        """Some of the rows."""
        return Trial(
            self.x[rows],
            self.treated[rows],
            self.outcome[rows],
            self.propensity[rows],
            self.user[rows],
            self.is_binary,
        )


def folds_of(user: IntArray, count: int, seed: int) -> IntArray:
    """Fold of each row, 0 to count - 1, at random by user."""
    known, place = np.unique(user, return_inverse=True)
    own = np.random.default_rng(seed).permutation(len(known)) % count
    return np.asarray(own[place], dtype=np.int64)
