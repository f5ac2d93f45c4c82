"""How much worse a model gets on a date when one feature is shuffled (Breiman 2001; Fisher and others 2019)."""

from typing import Any

import numpy as np
import polars as pl

from lcm_ml.churn.metrics import mean_log_loss
from lcm_ml.churn.model import ChurnModel
from lcm_ml.frames.frame import Frame

SHUFFLES = 5
MAX_ROWS = 5000


def permutation_rows(run_id: str, model: ChurnModel, test: Frame, seed: int) -> list[dict[str, Any]]:
    """Rows of ml.feature_importance with the method permutation: rise of the test date's log loss, by feature.

    A category is shuffled as a whole, not level by level. At most MAX_ROWS users are taken. The interval is the mean
    less and plus two standard errors over SHUFFLES shuffles.
    """
    rng = np.random.default_rng(seed)
    kept = test.data[np.sort(rng.permutation(test.data.height)[:MAX_ROWS])]
    y = kept.get_column("is_churned").cast(pl.Float64).to_numpy()
    x = model.encoding.matrix(kept)
    usual = mean_log_loss(y, model.predict_encoded(x))
    orders = [rng.permutation(len(x)) for _ in range(SHUFFLES)]
    rises, at = {}, 0
    for column in model.encoding.columns:
        width = max(len(column.levels), 1)
        places = slice(at, at + width)
        before = x[:, places].copy()
        losses = []
        for order in orders:
            x[:, places] = before[order]
            losses.append(mean_log_loss(y, model.predict_encoded(x)) - usual)
        x[:, places] = before
        rises[column.name] = np.array(losses)
        at += width
    ranked = sorted(rises.items(), key=lambda item: (-item[1].mean(), item[0]))
    return [
        {
            "run_id": run_id,
            "model_name": model.name,
            "method": "permutation",
            "feature": name,
            "importance": float(rise.mean()),
            "ci_low": float(rise.mean() - 2 * rise.std(ddof=1) / np.sqrt(SHUFFLES)),
            "ci_high": float(rise.mean() + 2 * rise.std(ddof=1) / np.sqrt(SHUFFLES)),
            "rank": rank,
        }
        for rank, (name, rise) in enumerate(ranked, start=1)
    ]
