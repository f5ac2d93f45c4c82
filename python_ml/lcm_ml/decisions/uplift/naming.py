"""Four kinds of users by what a touch does to them, as the field names them."""

import numpy as np
import numpy.typing as npt

from lcm_ml.churn.estimator import FloatArray

PERSUADABLE, SURE_THING = "persuadable", "sure_thing"
LOST_CAUSE, DO_NOT_DISTURB = "lost_cause", "do_not_disturb"
SEGMENTS = (PERSUADABLE, SURE_THING, LOST_CAUSE, DO_NOT_DISTURB)
SIDED_95 = 1.959964
"""Standard errors that an effect has to be away from 0: two-sided 95 %, as good as the standard error is."""
SURE = 0.5


def uplift_segments(
    effect: FloatArray, standard_error: FloatArray, baseline: FloatArray, least: float
) -> npt.NDArray[np.str_]:
    """Name each user.

    Args:
        effect: of a touch on the outcome, shape (rows,).
        standard_error: of the effect.
        baseline: probability of a purchase without a touch.
        least: effect from which a touch is worth it.

    Returns:
        persuadable (an effect of `least` or more, clearly above 0), do_not_disturb (clearly below 0), else
        sure_thing (purchases anyway with a probability of SURE or more) or lost_cause.
    """
    margin = SIDED_95 * standard_error
    return np.select(
        [effect + margin < 0, (effect >= least) & (effect - margin > 0), baseline >= SURE],
        [DO_NOT_DISTURB, PERSUADABLE, SURE_THING],
        LOST_CAUSE,
    )
