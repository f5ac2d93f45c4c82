"""What an audit found, as rows of ml.fairness_metrics."""

from datetime import date
from typing import Any

from lcm_ml.churn.fairness import ALL, METRICS, Audit
from lcm_ml.churn.metrics import Measured, figure
from lcm_ml.churn.mitigation import COSTS

GAP, CHANGE = "(gap)", "(change)"
NONE = "none"
BESIDE = ("log_loss", "expected_profit", "realised_profit")
"""Figures of all users that METRICS lacks."""


def audit_rows(found: Audit, mitigation: str, run_id: str, model_name: str, day: date) -> list[dict[str, Any]]:
    """Everybody, the groups and the gaps of one attribute."""
    same = _same(found, mitigation, run_id, model_name, day)
    rows = [
        {
            **same,
            "level": group.level,
            "metric": metric,
            **(group.figures[metric].row() if group.figures else figure(None)),
            "n_users": group.users,
            "n_churned": group.churned,
            "is_suppressed": not group.figures,
        }
        for group in (found.everybody, *found.groups)
        for metric in METRICS
    ]
    shown = [group for group in found.groups if group.figures]
    users, churned = sum(group.users for group in shown), sum(group.churned or 0 for group in shown)
    rows += [
        {
            **same,
            "level": GAP,
            "metric": gap.metric,
            **gap.difference.row(),
            "n_users": users,
            "n_churned": churned,
            "is_warning": gap.is_warning,
            "p_value": gap.p_value,
        }
        for gap in found.gaps
    ]
    return rows


def cost_rows(
    mitigation: str,
    without: dict[str, Measured],
    with_it: dict[str, Measured],
    found: Audit,
    run_id: str,
    model_name: str,
    day: date,
) -> list[dict[str, Any]]:
    """What audit_rows has not of everybody, with and without the mitigation, and what it changes (paired)."""

    def row(kind: str, level: str, metric: str, measured: Measured) -> dict[str, Any]:
        return {
            **_same(found, kind, run_id, model_name, day),
            "level": level,
            "metric": metric,
            **figure(measured),
            "n_users": found.everybody.users,
            "n_churned": found.everybody.churned,
        }

    return [
        *(row(NONE, ALL, metric, without[metric]) for metric in BESIDE),
        *(row(mitigation, ALL, metric, with_it[metric]) for metric in BESIDE),
        *(row(mitigation, CHANGE, metric, with_it[metric].minus(without[metric])) for metric in COSTS),
    ]


def _same(found: Audit, mitigation: str, run_id: str, model_name: str, day: date) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "model_name": model_name,
        "as_of_date": day,
        "mitigation": mitigation,
        "attribute": found.attribute,
        "is_suppressed": False,
        "is_warning": False,
        "p_value": None,
    }
