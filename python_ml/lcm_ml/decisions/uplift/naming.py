"""Four kinds of users by what a touch does to them, as the field names them."""

import numpy as np
import numpy.typing as npt

from lcm_ml.churn.estimator import FloatArray
from lcm_ml.insights.intervals import Z

PERSUADABLE, SURE_THING = "persuadable", "sure_thing"
LOST_CAUSE, DO_NOT_DISTURB = "lost_cause", "do_not_disturb"
SEGMENTS = (PERSUADABLE, SURE_THING, LOST_CAUSE, DO_NOT_DISTURB)
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
    # What an effect has to be away from 0: two-sided 95 %, as good as the standard error is.
    margin = Z * standard_error
    return np.select(
        [effect + margin < 0, (effect >= least) & (effect - margin > 0), baseline >= SURE],
        [DO_NOT_DISTURB, PERSUADABLE, SURE_THING],
        LOST_CAUSE,
    )
