"""How `lcm-ml models export` prints its figures."""

from typing import Any

from rich import box
from rich.table import Table


def export_table(result: dict[str, Any]) -> Table:
    """Size, time and figures of a version as it is saved and of its exports; 95 % intervals below the figures."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("variant", no_wrap=True)
    for header in ("kB", "µs a user", "largest difference", "AUC", "log loss", "log loss less full"):
        table.add_column(header, justify="right", no_wrap=True)
    saved = result["as_saved"]
    table.add_row("as saved", *_size_and_time(saved))
    for row in result["exports"]:
        table.add_row(
            row["variant"],
            *_size_and_time(row),
            f"{row['max_difference']:.0e}",
            _cell(row["auc"], ".4f"),
            _cell(row["log_loss"], ".4f"),
            "-" if row["variant"] == "full" else _cell(row["log_loss_less_full"], "+.4f"),
        )
    return table


def _size_and_time(row: dict[str, Any]) -> tuple[str, str]:
    return f"{row['bytes'] / 1000:,.1f}", f"{row['microseconds_per_user']:.2f}"


def _cell(figure: dict[str, float | None], digits: str) -> str:
    value, low, high = ("-" if number is None else format(number, digits) for number in figure.values())
    return f"{value}\n{low} to {high}"
