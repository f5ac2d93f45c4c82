"""Model cards (Mitchell and others 2019, "Model Cards for Model Reporting") from what the registry knows."""

from typing import Any

import duckdb

from lcm_ml.registry import artefacts
from lcm_ml.registry.versions import find_version
from lcm_ml.warehouse.connection import rows

METRICS = (
    ("auc", "AUC"),
    ("average_precision", "average precision"),
    ("log_loss", "log loss"),
    ("brier", "Brier score"),
    ("top_decile_lift", "lift, top decile"),
    ("ece", "calibration error"),
    ("ece_by_chance", "calibration error that chance alone gives"),
    ("calibration_slope", "calibration slope"),
    ("accuracy", "accuracy"),
    ("majority_accuracy", "accuracy of saying the same of everybody"),
)


def model_card(con: duckdb.DuckDBPyConnection, version: str | None = None) -> str:
    """The card of a version (default: the champion) as Markdown.

    Raises:
        LcmError: when there is no such version, or its files are gone.
    """
    row = find_version(con, version)
    manifest = artefacts.read_manifest(row["artefact"], row["artefact_hash"])
    metrics = rows(
        con, "select * from ml.model_metrics where run_id = ? and split = 'test' order by model_name", [row["run_id"]]
    )
    segments = rows(
        con,
        "select * from ml.segment_metrics where run_id = ? and model_name = ? and metric in ('auc', 'base_rate') "
        "order by dimension, level",
        [row["run_id"], row["model_name"]],
    )
    important = rows(
        con,
        "select feature, importance from ml.feature_importance where run_id = ? and model_name = ? "
        "and method = 'permutation' order by rank limit 10",
        [row["run_id"], row["model_name"]],
    )
    dates = manifest["trained_on"]
    lines = [
        f"# Model card: {row['model_version']}",
        "",
        "## What it is for",
        f"The probability that a user who purchased lately makes {manifest['label']['definition']}. It ranks users for "
        "retention and tells how many to expect to lose. It says nothing of why a user leaves, nor whether a contact "
        "would keep one.",
        "",
        "## What it is",
        f"- Estimator `{manifest['model_name']}`, calibration {manifest['calibration']}, seed {manifest['seed']}.",
        f"- Settings: `{manifest['settings']}`",
        f"- Status: {row['status']}; made {row['created_at']:%Y-%m-%d %H:%M} UTC by lcm {manifest['code_version']}, "
        f"Python {manifest['python']}.",
        "",
        "## What it learnt from",
        f"- {len(dates)} as_of_dates, {dates[0]} to {dates[-1]}; data fingerprint "
        f"`{manifest['data_fingerprint'][:16]}`.",
        f"- {len(manifest['columns'])} features; sensitive attributes are not among them. "
        f"{len(manifest['constant_columns'])} constant columns were dropped.",
    ]
    if important:
        listed = ", ".join(f"{item['feature']} ({item['importance']:.4f})" for item in important)
        lines.append(f"- What its figures rest on most (rise of log loss when shuffled): {listed}.")
    lines += ["", f"## How good it is, on {manifest['test_date']}, out of time", *_figures(metrics, row["model_name"])]
    if row["evaluated_version"]:
        lines.append(
            f"\nMeasured on `{row['evaluated_version']}`, which had not seen that date; this version has the same "
            "settings and learnt from all labelled dates."
        )
    if segments:
        lines += ["", "### By group of users", *_groups(segments)]
    lines += [
        "",
        "## Limits",
        "- It knows users with a purchase in the active window only; others have no score.",
        "- Its probabilities hold while the shop stays as it was: `lcm-ml monitor` watches that.",
        "- Accuracy alone says nothing where few churn: read it beside its majority rate.",
        "- A high risk is no reason to treat a person worse: see `lcm-ml fairness` before acting on groups.",
        "",
    ]
    return "\n".join(lines)


def _figures(metrics: list[dict[str, Any]], model: str) -> list[str]:
    others = [name for name in dict.fromkeys(item["model_name"] for item in metrics) if name != model]
    lines = [f"| | {model} | {' | '.join(others)} |", "| --- |" + " --- |" * (len(others) + 1)]
    for metric, title in METRICS:
        cells = [_cell(metrics, name, metric) for name in (model, *others)]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def _cell(metrics: list[dict[str, Any]], model: str, metric: str) -> str:
    found = [item for item in metrics if (item["model_name"], item["metric"]) == (model, metric)]
    if not found or found[0]["value"] is None:
        return "-"
    value, low, high = (found[0][name] for name in ("value", "ci_low", "ci_high"))
    return f"{value:.4f}" if low is None else f"{value:.4f} ({low:.4f} to {high:.4f})"


def _groups(segments: list[dict[str, Any]]) -> list[str]:
    lines = ["| group | users | base rate | AUC |", "| --- | --- | --- | --- |"]
    for dimension, level in dict.fromkeys((item["dimension"], item["level"]) for item in segments):
        group = {i["metric"]: i for i in segments if (i["dimension"], i["level"]) == (dimension, level)}
        values = [
            "-" if group[metric]["value"] is None else f"{group[metric]['value']:.3f}"
            for metric in ("base_rate", "auc")
        ]
        lines.append(f"| {dimension}: {level} | {group['auc']['n_users']:,} | {values[0]} | {values[1]} |")
    return lines
