"""`lcm-ml profile`: all that is known of one user."""

from typing import Annotated, Any

import typer

from lcm_ml.cli.console import JsonOption, command, emit, notify, out


def profile(
    user_id: Annotated[str, typer.Argument(help="The user, as in serving.user_profiles.")],
    as_json: JsonOption = False,
) -> None:
    """Print a user's card: who it is, where it stands, what it likes, whether it stays, what it is worth.

    Sensitive attributes are marked; models never use them. `lcm-ml report --user USER_ID` puts the card into a report.

    Example: `lcm-ml profile 1042`
    """
    with command(as_json):
        emit(run_profile(user_id), as_json, _show)


def run_profile(user_id: str) -> dict[str, Any]:
    """What the warehouse knows of a user.

    Raises:
        LcmError: when nothing is built, or there is no such user.
    """
    from lcm_ml.insights.profile import read_profile
    from lcm_ml.warehouse.connection import connect

    with connect(read_only=True, notify=notify) as con:
        return read_profile(con, user_id)


def _show(found: dict[str, Any]) -> None:
    from rich.table import Table

    from lcm_ml.insights.profile import card

    out.print(f"user {found['profile']['user_id']}, as of {found['profile']['as_of_date']}", style="bold")
    for part in card(found):
        out.print(f"\n{part.title}", style="bold cyan")
        lines = Table.grid(padding=(0, 2))
        lines.add_column(min_width=18, style="dim")
        lines.add_column(overflow="fold")
        for label, text in part.lines:
            lines.add_row(_literal(label), _literal(text))
        out.print(lines, soft_wrap=False)


def _literal(text: str) -> Any:
    from rich.text import Text

    return Text(text)
