"""How an audit of fairness is printed."""

from typing import Any

from rich import box
from rich.table import Table

from lcm_ml.cli.console import out, with_interval

FORM = ",.3f"
TITLES = {
    "base_rate": "base rate",
    "mean_probability": "mean probability",
    "calibration_in_the_large": "calibration in the large",
    "auc": "AUC",
    "ece": "calibration error",
    "calibration_slope": "calibration slope",
    "selection_rate": "share contacted",
    "false_positive_rate": "false positive rate",
    "false_negative_rate": "false negative rate",
    "log_loss": "log loss",
    "expected_profit": "expected profit",
    "realised_profit": "realised profit",
}
COLUMNS = {
    "base_rate": "base rate",
    "auc": "AUC",
    "calibration_in_the_large": "predicted\nless actual",
    "selection_rate": "contacted",
    "false_positive_rate": "FPR",
    "false_negative_rate": "FNR",
}


def show(result: dict[str, Any]) -> None:
    """Each attribute's groups and gaps, the warnings, and what a mitigation changed."""
    out.print(
        f"{result['model_version']} on {result['as_of_date']}, out of time: {result['users']:,} users, "
        f"{result['churned']:,} churned; contacted above {result['threshold']:.3f} (by the costs: "
        f"{result['threshold_by_costs']:.3f})"
    )
    if not result["attributes"]:
        out.print("no user of that date has a sensitive attribute: load users with some to audit the model")
        return
    for found in result["attributes"]:
        _show_audit(found, found["attribute"])
    if result["without_values"]:
        out.print(f"without any value, and left out: {', '.join(result['without_values'])}")
    for text in result["warnings"]:
        out.print(f"warning: {text}", style="yellow")
    if not result["warnings"]:
        out.print(f"no warning: no gap beyond {result['max_gap']:g} that chance does not explain")
    if result["mitigation"]:
        _show_mitigation(result)


def _show_audit(found: dict[str, Any], title: str) -> None:
    from lcm_ml.churn.permutation import TESTED

    out.print(_group_table(found, title))
    if hidden := [group["level"] for group in found["groups"] if group["is_suppressed"]]:
        out.print(f"suppressed, too small or told by the others: {', '.join(hidden)}")
    if not found["gaps"]:
        out.print("  fewer than two groups can be shown: no gaps to measure")
    within = []
    for gap in found["gaps"]:
        told = f"{TITLES[gap['metric']]} {with_interval(gap, FORM)}"
        if gap["p_value"] is not None:
            widest = [gap["high"], gap["low"]]
            pair = "" if gap["pair"] == widest else f" for {' against '.join(gap['pair'])}"
            out.print(
                f"  gap in {told}, {' against '.join(widest)}, p {gap['p_value']:.3f}{pair}",
                style="yellow" if gap["is_warning"] else None,
            )
        elif gap["metric"] in TESTED:
            within.append(told)
    if within:
        out.print(f"  gaps within the limit: {'; '.join(within)}")


def _group_table(found: dict[str, Any], title: str) -> Table:
    table = Table(
        title=f"{title}: not known of {found['unknown']:,} users",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        collapse_padding=True,
    )
    table.add_column("group", no_wrap=True, max_width=19)
    for header in ("users", *COLUMNS.values()):
        table.add_column(header, justify="right", no_wrap=True)
    for group in (found["everybody"], *found["groups"]):
        cells = [_cell(group["figures"].get(metric)) for metric in COLUMNS]
        table.add_row(group["level"], f"{group['users']:,}", *cells)
    return table


def _cell(figure: dict[str, Any] | None) -> str:
    if figure is None or figure["value"] is None:
        return "-"
    value = f"{figure['value']:{FORM}}"
    return value if figure["ci_low"] is None else f"{value}\n{figure['ci_low']:{FORM}}..{figure['ci_high']:{FORM}}"


def _show_mitigation(result: dict[str, Any]) -> None:
    found = result["mitigation"]
    after, name = found["audit"], found["audit"]["attribute"]
    before = next(each for each in result["attributes"] if each["attribute"] == name)
    out.print()
    out.print(_group_table(after, f"{name} with {found['kind']}"))
    for level, threshold in found["thresholds"].items():
        out.print(f"  threshold of {level}: {threshold:.3f}")
    gaps = {gap["metric"]: gap for gap in after["gaps"]}
    for gap in before["gaps"]:
        then, now = with_interval(gap, FORM), with_interval(gaps.get(gap["metric"]), FORM)
        out.print(f"  gap in {TITLES[gap['metric']]}: {then} before, {now} after")
    for metric, cost in found["costs"].items():
        digits = 0 if metric.endswith("profit") else 4
        without, with_it, change = (with_interval(cost[part], f",.{digits}f") for part in ("without", "with", "change"))
        out.print(f"  {TITLES[metric]}, all users: {without} before, {with_it} after; change {change}")
    out.print("nothing is served from it; using a sensitive attribute to decide may be unlawful: see docs/fairness.md")
