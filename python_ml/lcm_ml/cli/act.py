"""`lcm-ml act`: decide what to do next with each user, hand out lists, record what was sent."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from lcm_ml.cli.console import AsOfOption, JsonOption, command, emit, out, progress

TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]

app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def act(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the lists, marked so; record nothing.")] = False,
    budget: Annotated[
        float | None, typer.Option(help="Money for contacts and discounts. Default: no limit.", min=0)
    ] = None,
    sent_at: Annotated[
        datetime | None,
        typer.Option(help="When the lists are handed over, UTC. Default: now.", formats=TIMES),
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Folder for a folder of lists. Default: beside the warehouse.")
    ] = None,
    as_of: AsOfOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decide what to do next with each user, write one list per channel, and record what was sent.

    The rules are those of seeds/decisions/action_rules.csv. A share of the users is held back at random, so that the
    effect can be told. What is recorded comes back with the next build as campaign touches. Nobody is contacted twice:
    for a date that is on record, nothing is done.

    Example: `lcm-ml act --dry-run`
    """
    if context.invoked_subcommand is not None:
        return
    with command(as_json):
        from lcm_ml.cli.act_runs import send

        with progress("act", as_json) as advance:
            result = send(as_of, advance, is_dry=dry_run, budget=budget, sent_at=sent_at, out_dir=out_dir)
        emit(result, as_json, _show_sent)


@app.command()
def rules(as_of: AsOfOption = None, as_json: JsonOption = False) -> None:
    """Show how many users each rule fits, decides for, and would have contacted but for what blocked it.

    Example: `lcm-ml act rules`
    """
    with command(as_json):
        from lcm_ml.cli.act_runs import count_rules

        with progress("act rules", as_json) as advance:
            result = count_rules(as_of, advance)
        emit(result, as_json, _show_rules)


@app.command()
def check(as_json: JsonOption = False) -> None:
    """Test the rules against seeds/decisions/action_rule_examples.csv. One that fails makes the exit code 1.

    Example: `dbt seed && lcm-ml act check`
    """
    with command(as_json):
        from lcm_ml.cli.act_runs import check_rules

        result = check_rules()
        emit(result, as_json, _show_check)
    if result["failed"]:
        raise typer.Exit(1)


def _show_sent(result: dict[str, Any]) -> None:
    from rich.table import Table

    if result["note"]:
        out.print(result["note"])
    if result["campaigns"]:
        table = Table("rule", "channel", "offer", "contacts", "held back", "expected profit")
        for row in result["campaigns"]:
            table.add_row(
                row["rule_id"],
                row["channel"],
                row["offer"],
                f"{row['contacts']:,}",
                f"{row['held_back']:,}",
                f"{row['expected_profit']:,.2f}",
            )
        out.print(table)
        out.print(
            f"{result['contacts']:,} contacts as of {result['as_of_date']}, {result['held_back']:,} held back; "
            f"expected to earn {result['expected_profit']:,.2f}; the contacts cost {result['cost']:,.2f}"
        )
    for path in result["files"]:
        out.print(f"list       {path}")
    out.print(f"recorded   {result['recorded']}")
    for warning in result["warnings"]:
        out.print(f"note: {warning}", style="yellow")


def _show_rules(result: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table("priority", "rule", "action", "fits", "decides", "contacts", "blocked", "e.g. user")
    for row in result["rules"]:
        table.add_row(
            str(row["priority"]),
            row["rule_id"],
            row["action"],
            *(f"{row[name]:,}" for name in ("fits", "decides", "contacts", "blocked")),
            row["example"] or "-",
        )
    out.print(table)
    out.print(f"{result['users']:,} users as of {result['as_of_date']}; {result['without_rule']:,} fit no rule")


def _show_check(result: dict[str, Any]) -> None:
    for row in result["examples"]:
        if row["is_right"]:
            out.print(f"pass  {row['example']}: {row['decided_by']}")
        else:
            got = row["decided_by"] or "no rule"
            out.print(
                f"FAIL  {row['example']}: {got} decides, expected {row['expected_rule']}",
                style="bold red",
            )
    for rule_id in result["without_example"]:
        out.print(f"note: the rule {rule_id} has no example", style="yellow")
