"""How fit and evaluate print their figures."""

from typing import Any

from rich import box
from rich.table import Table

from lcm_ml.churn.baselines import BASELINES
from lcm_ml.churn.ceiling import CEILING

SHOWN = {
    "auc": "AUC",
    "average_precision": "av. prec.",
    "log_loss": "log loss",
    "brier": "Brier",
    "top_decile_lift": "lift 10 %",
}
COMPARED = ("auc", "log_loss")


def number(metric: str, value: float | None) -> str:
    """A figure with the digits that its metric deserves."""
    if value is None:
        return "-"
    return f"{value:.2f}" if metric in ("top_decile_lift", "calibration_slope") else f"{value:.4f}"


def _cell(metric: str, figure: dict[str, float | None]) -> str:
    if figure["ci_low"] is None:
        return number(metric, figure["value"])
    low, high = (number(metric, figure[end])[:5].removeprefix("0") for end in ("ci_low", "ci_high"))
    return f"{number(metric, figure['value'])}\n{low}-{high}"


def metric_table(title: str, models: dict[str, Any], champion: str | None = None) -> Table:
    """One row per model, the champion marked and the baselines last; 95 % intervals below the figures."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
    table.add_column("model", no_wrap=True, max_width=19)
    for header in SHOWN.values():
        table.add_column(header, justify="right", no_wrap=True)
    for name in sorted(models, key=lambda model: (model == CEILING, model in BASELINES, model != champion)):
        label = f"{name} *" if name == champion else f"{name}\n(baseline)" if name in BASELINES else name
        table.add_row(label, *(_cell(metric, models[name][metric]) for metric in SHOWN))
    return table


def accuracy_line(metrics: dict[str, Any]) -> str:
    """Accuracy, never without what saying the same of everybody would reach."""
    return (
        f"champion: accuracy {metrics['accuracy']['value']:.3f}; saying the same of everybody: "
        f"{metrics['majority_accuracy']['value']:.3f} (base rate {metrics['base_rate']['value']:.3f})"
    )


def calibration_line(metrics: dict[str, Any]) -> str:
    """How far the probabilities can be taken at their word."""
    slope, error = metrics["calibration_slope"], metrics["ece"]
    chance, most = metrics["ece_by_chance"], metrics["ece_by_chance_p95"]
    low, high = number("calibration_slope", slope["ci_low"]), number("calibration_slope", slope["ci_high"])
    return (
        f"champion: calibration slope {number('calibration_slope', slope['value'])} ({low}-{high}; 1 is right), "
        f"calibration error {number('ece', error['value'])} "
        f"(chance alone: {number('ece', chance['value'])}, up to {number('ece', most['value'])})"
    )


def comparison_lines(comparisons: list[dict[str, Any]], model_name: str) -> list[str]:
    """One line per other model: paired differences with their 95 % intervals."""
    pairs = dict.fromkeys(
        (row["model_name"], row["reference_name"]) for row in comparisons if row["model_name"] == model_name
    )
    lines = []
    for model, reference in pairs:
        parts = [
            f"{SHOWN[row['metric']]} {_signed(row['difference'])} [{_signed(row['ci_low'])}, {_signed(row['ci_high'])}]"
            for row in comparisons
            if (row["model_name"], row["reference_name"]) == (model, reference) and row["metric"] in COMPARED
        ]
        lines.append(f"{model} less {reference}: {'; '.join(parts)}")
    return lines


def profit_line(row: dict[str, Any]) -> str:
    """What a threshold contacts and earns."""
    return (
        f"contacts {row['contacted_share']:>4.0%}, catches {row['recall']:>4.0%} of churners, earned "
        f"{row['realised_profit']:,.0f} ({row['ci_low']:,.0f} to {row['ci_high']:,.0f}), expected "
        f"{row['expected_profit']:,.0f}"
    )


def segment_table(rows: list[dict[str, Any]], model: str, dimension: str) -> Table:
    """One row per date and group of one model, with intervals; small groups are not shown."""
    table = Table(title=f"{model} by {dimension}", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    for header in ("date", "group"):
        table.add_column(header, no_wrap=True)
    metrics = ("base_rate", "auc", "log_loss", "calibration_slope")
    for header in ("users", "base rate", "AUC", "log loss", "slope"):
        table.add_column(header, justify="right", no_wrap=True)
    own = [row for row in rows if row["model_name"] == model and row["dimension"] == dimension]
    for day, level in dict.fromkeys((row["as_of_date"], row["level"]) for row in own):
        group = {row["metric"]: row for row in own if (row["as_of_date"], row["level"]) == (day, level)}
        cells = [_cell(metric, group[metric]) for metric in metrics]
        table.add_row(str(day), level, f"{group['auc']['n_users']:,}", *cells)
    return table


def version_table(versions: list[dict[str, Any]]) -> Table:
    """One row per saved model."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for header in ("version", "status", "trained on", "test date"):
        table.add_column(header, no_wrap=True)
    for header in ("AUC", "log loss"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in versions:
        table.add_row(
            row["model_version"],
            row["status"],
            f"{row['trained_from']} to {row['trained_to']}",
            str(row["test_date"] or "-"),
            number("auc", row["auc"]),
            number("log_loss", row["log_loss"]),
        )
    return table


def model_figures(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Rows of ml.model_metrics of one split and date as `metric_table` takes them."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(row["model_name"], {})[row["metric"]] = row
    return found


def run_table(runs: list[dict[str, Any]]) -> Table:
    """One row per run."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for header in ("run", "status", "data", "best", "on"):
        table.add_column(header, no_wrap=True)
    for header in ("AUC", "log loss", "seconds"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in runs:
        table.add_row(
            row["run_id"],
            row["status"],
            (row["data_fingerprint"] or "-")[:8],
            row["best_model"] or "-",
            row["split"] or "-",
            number("auc", row["auc"]),
            number("log_loss", row["log_loss"]),
            f"{(row['finished_at'] - row['started_at']).total_seconds():.0f}",
        )
    return table


def side_by_side_table(metrics: list[dict[str, Any]], letters: dict[str, str]) -> Table:
    """Figures of several runs, a column each: on the test date, and the mean over dates or, without one, each date."""
    title = "side by side, with 95 % intervals"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    for header in ("on", "model", "metric"):
        table.add_column(header, no_wrap=True)
    for letter in letters.values():
        table.add_column(letter, justify="right", no_wrap=True)
    has_mean = any(row["as_of_date"] is None for row in metrics)
    wanted = [
        row
        for row in metrics
        if row["metric"] in SHOWN
        and (row["split"] == "test" or (row["split"] == "fold" and (row["as_of_date"] is None or not has_mean)))
    ]
    order = list(SHOWN)
    for row in sorted(
        wanted, key=lambda row: (row["split"], str(row["as_of_date"]), row["model_name"], order.index(row["metric"]))
    ):
        figures = [row["figures"][run_id] for run_id in letters]
        cells = [_cell(row["metric"], figure).replace("\n", " ") if figure else "-" for figure in figures]
        table.add_row(f"{row['split']} {row['as_of_date'] or 'mean'}", row["model_name"], SHOWN[row["metric"]], *cells)
    return table


def difference_lines(differences: list[dict[str, Any]], letters: dict[str, str]) -> list[str]:
    """One line for each pair of models of two runs: paired differences with their 95 % intervals."""
    keys = ("run_id", "model_name", "reference_run_id", "reference_name", "n_dates", "n_users")
    pairs: dict[tuple[Any, ...], list[str]] = {}
    for row in differences:
        if row["metric"] in COMPARED:
            interval = f"[{_signed(row['ci_low'])}, {_signed(row['ci_high'])}]"
            difference = f"{SHOWN[row['metric']]} {_signed(row['value'])} {interval}"
            pairs.setdefault(tuple(row[key] for key in keys), []).append(difference)
    lines = []
    for (run, name, reference, other, dates, users), told in pairs.items():
        on = f"{dates} date{'s' * (dates > 1)}, {users:,} users"
        lines.append(f"{name} of {letters[run]} less {other} of {letters[reference]}, {on}: {'; '.join(told)}")
    return lines


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"
