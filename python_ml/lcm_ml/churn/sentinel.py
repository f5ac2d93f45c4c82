"""Stops a fit whose data knows the answer."""

import numpy as np

from lcm_ml.churn.encoding import Encoding, FloatMatrix
from lcm_ml.churn.estimator import FloatArray
from lcm_ml.churn.metrics import measure_auc
from lcm_ml.errors import LcmError

LEAK_AUC = 0.98


def refuse_leaks(encoding: Encoding, x: FloatMatrix, y: FloatArray) -> None:
    """Look for a column that tells churn nearly alone, in either direction; a missing value counts as the lowest.

    Args:
        encoding: names the columns of x.
        x: training rows, shape (rows, columns).
        y: 0.0 or 1.0, shape (rows,).

    Raises:
        LcmError: naming every column whose AUC alone is above LEAK_AUC.
    """
    found = []
    for index, name in enumerate(encoding.names):
        column = x[:, index].astype(np.float64)
        auc = measure_auc(y, np.where(np.isnan(column), -np.inf, column))
        if max(auc, 1 - auc) > LEAK_AUC:
            found.append(f"{name} (AUC {max(auc, 1 - auc):.3f})")
    if found:
        raise LcmError(
            f"the label leaks into the features: alone {', '.join(found)} tells who churns",
            "mend the column so that it uses only what happened before as_of_date, "
            "or list it in the var non_model_features",
        )
