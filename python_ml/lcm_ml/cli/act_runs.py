"""What the commands of `lcm-ml act` do: read, decide, write, record, tell."""

from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcm_ml.cli.console import Advance, notify
from lcm_ml.errors import UsageError

if TYPE_CHECKING:
    import duckdb
    import polars as pl

    from lcm_ml.decisions.actions.deciding import Decided
    from lcm_ml.registry.runs import Run

DRY_RUN = "dry-run"


def run_act(as_of: datetime | None, advance: Advance, budget: float | None = None) -> dict[str, Any]:
    """Decide what to do next with each user. Nothing is handed out.

    Raises:
        LcmError: when the marts cannot be read, a rule makes no sense, or the warehouse cannot be written.
    """
    from lcm_ml.registry.runs import Run

    run = Run("act", {"budget": budget})
    day, decided = _decide(run, as_of, budget, advance)
    counts = dict(sorted(decided.actions["action"].value_counts().iter_rows()))
    return {"run_id": run.run_id, "as_of_date": day, "users": decided.actions.height, "actions": counts, "note": None}


def _decide(run: "Run", as_of: datetime | None, budget: float | None, advance: Advance) -> tuple[date, "Decided"]:
    from lcm_ml.registry.runs import run_capability

    def compute(con: "duckdb.DuckDBPyConnection", day: date) -> "tuple[dict[str, pl.DataFrame], Decided]":
        decided = _decided_at(con, day, budget, advance)
        return {"next_best_actions": decided.actions}, decided

    return run_capability(run, as_of, compute, notify)


def _decided_at(con: "duckdb.DuckDBPyConnection", day: date, budget: float | None, advance: Advance) -> "Decided":
    from lcm_ml.decisions.actions.deciding import Known, decide
    from lcm_ml.decisions.options import rules_of, situations_at
    from lcm_ml.frames.decisions import recommended_at, setting_table

    rules, channels = rules_of(con), setting_table(con, "contact_channels")
    parts = (
        Known(some.users, some.options, some.uplift, recommended_at(con, day, some.within))
        for some in situations_at(con, day, lambda _, share: advance("deciding", 0.8 * share))
    )
    decided = decide(parts, rules, channels, day, budget)
    advance("writing", 0.8)
    return decided


def count_rules(as_of: datetime | None, advance: Advance) -> dict[str, Any]:
    """What each rule comes to at a date. Nothing is written.

    Raises:
        LcmError: when the marts cannot be read, or a rule makes no sense.
    """
    from lcm_ml.frames.frame import resolve_as_of
    from lcm_ml.warehouse.connection import connect

    with connect(read_only=True, notify=notify) as con:
        day = resolve_as_of(con, as_of.date() if as_of else None)
        decided = _decided_at(con, day, None, advance)
    return {
        "as_of_date": day,
        "users": decided.actions.height,
        "without_rule": decided.actions["rule_id"].null_count(),
        "rules": decided.rules.to_dicts(),
    }


def check_rules() -> dict[str, Any]:
    """Try the rules on the examples. Nothing is written.

    Raises:
        LcmError: when the seeds are not built, or a rule or an example makes no sense.
    """
    from lcm_ml.decisions.actions.rules import check_examples, without_example
    from lcm_ml.decisions.options import rules_of
    from lcm_ml.frames.decisions import setting_table
    from lcm_ml.warehouse.connection import connect

    with connect(read_only=True, notify=notify) as con:
        rules = rules_of(con)
        tried = check_examples(rules, setting_table(con, "action_rule_examples"))
    return {
        "examples": tried.to_dicts(),
        "failed": tried.height - tried["is_right"].sum(),
        "without_example": without_example(rules, tried["expected_rule"].to_list()),
    }


def send(
    as_of: datetime | None,
    advance: Advance,
    *,
    is_dry: bool,
    budget: float | None,
    sent_at: datetime | None,
    out_dir: Path | None,
) -> dict[str, Any]:
    """Decide, write the lists, record what they hold; the lists are in sight only once it is on record.

    Args:
        as_of: one of marts.as_of_dates; the end of the data where None.
        advance: tells the progress.
        is_dry: write the lists and record nothing.
        budget: money for contacts and discounts; None is no limit.
        sent_at: when the lists are handed over, UTC; None is now.
        out_dir: the folder of folders of lists; None is beside the warehouse.

    Raises:
        LcmError: when something cannot be read or written; then either all is done or nothing.
        UsageError: for a date that is not the end of the data, or a hand-over before it.
    """
    import polars as pl

    from lcm_ml import project
    from lcm_ml.decisions.actions import lists
    from lcm_ml.decisions.actions.sending import to_send
    from lcm_ml.registry.runs import Run, failure_recorded, record, utc_now
    from lcm_ml.warehouse.connection import writer_lock

    run = Run("act", {"dry_run": is_dry, "budget": budget, "sent_at": sent_at})
    # Under the writer's lock from the start, so that two processes cannot send for one date.
    with writer_lock("lcm-ml act", notify):
        state = _state(as_of, sent_at or utc_now(), is_dry)
        day, name = state["day"], f"{state['day']}.{DRY_RUN}" if is_dry else str(state["day"])
        folder = (out_dir or project.beside_warehouse("actions")) / name
        if state["sent"].height and not is_dry:
            return _already_sent(state["sent"], folder)
        if not is_dry:
            lists.refuse_lists_without_record(folder)
        _, decided = _decide(run, as_of, budget, advance)
        sent = to_send(decided.actions, state["offers"], day, sent_at or utc_now(), state["holdout_share"])
        files, raw = _files(sent, state, is_dry)
        loads: list[str] = []

        def rows(con: "duckdb.DuckDBPyConnection") -> "dict[str, pl.DataFrame]":
            from lcm_ml.sources.sent_actions import add_to_raw

            if state["mode"] == "raw":
                loads.append(add_to_raw(con, raw, f"lcm-ml act {day}"))
            return {"actions_sent": sent.with_columns(run_id=pl.lit(run.run_id), as_of_date=pl.lit(day))}

        def place() -> None:
            if not is_dry and sent.height:
                with failure_recorded(run, notify):
                    record(run, rows, notify)

        advance("writing lists", 0.9)
        written = lists.write(files, folder, run.run_id, place) if sent.height else []
    return _told(run.run_id, day, sent, written) | {
        "dry_run": is_dry,
        "load_id": loads[0] if loads else None,
        "recorded": _recorded(is_dry, sent.height, state["mode"], folder),
        "note": None if sent.height else f"nobody is to be contacted as of {day}",
        "warnings": lists.formula_warnings(files.values()),
    }


def _state(as_of: datetime | None, sent_at: datetime, is_dry: bool) -> dict[str, Any]:
    """What the warehouse says before anything is decided."""
    from lcm_ml.frames.decisions import product_titles, sent_for, setting_table
    from lcm_ml.frames.experiments import midnight
    from lcm_ml.frames.frame import built_settings, resolve_as_of, scoring_date
    from lcm_ml.warehouse.connection import connect
    from lcm_ml.warehouse.state import last_build

    with connect(read_only=True, notify=notify) as con:
        day, end = resolve_as_of(con, as_of.date() if as_of else None), scoring_date(con)
        if not is_dry and day != end:
            raise UsageError(
                f"{day} is past: users are contacted as of the end of the data, {end}",
                "leave --as-of out, or --dry-run",
            )
        if sent_at < midnight(con, day):
            raise UsageError(f"--sent-at {sent_at} lies before {day}, the day that is decided for", "take a later one")
        build = last_build(con)
        return {
            "day": day,
            "mode": build["source_mode"] if build else None,
            "sent": sent_for(con, day),
            "titles": product_titles(con),
            "offers": setting_table(con, "offers"),
            "channels": setting_table(con, "contact_channels"),
            "holdout_share": float(built_settings(con)["action_holdout_share"]),
        }


def _files(
    sent: "pl.DataFrame", state: dict[str, Any], is_dry: bool
) -> "tuple[dict[str, pl.DataFrame], dict[str, pl.DataFrame]]":
    """The lists and the raw rows by file name, and the raw rows by table."""
    from lcm_ml.decisions.actions.lists import channel_lists
    from lcm_ml.sources.sent_actions import raw_rows

    raw = raw_rows(sent, state["channels"])
    frames = channel_lists(sent, state["titles"]) | ({} if is_dry else raw)
    return {f"{name}.{DRY_RUN}" if is_dry else name: frame for name, frame in frames.items()}, raw


def _told(run_id: str, day: date, sent: "pl.DataFrame", files: list[Path]) -> dict[str, Any]:
    import polars as pl

    from lcm_ml.frames.touches import CONTROL

    is_held = pl.col("arm") == CONTROL
    profit = pl.col("expected_profit").filter(~is_held).sum()
    campaigns = (
        sent.group_by("rule_id", "channel", "offer", "campaign_id")
        .agg(contacts=(~is_held).sum(), held_back=is_held.sum(), expected_profit=profit)
        .sort("campaign_id")
    )
    return {
        "run_id": run_id,
        "as_of_date": day,
        "contacts": int(campaigns["contacts"].sum()),
        "held_back": int(campaigns["held_back"].sum()),
        "expected_profit": float(campaigns["expected_profit"].sum()),
        "cost": float(sent["contact_cost"].sum()),
        "campaigns": campaigns.to_dicts(),
        "files": files,
        "warnings": [],
    }


def _recorded(is_dry: bool, rows: int, mode: str, folder: Path) -> str:
    if is_dry:
        return "nothing: a dry run"
    if not rows:
        return "nothing"
    if mode == "raw":
        return "in ml.actions_sent and raw.campaign_touches; the next build counts the contacts"
    source = "the sample" if mode == "sample" else "tables of your own"
    return f"in ml.actions_sent; staging reads {source}: load {folder}/campaigns and campaign_touches there"


def _already_sent(sent: "pl.DataFrame", folder: Path) -> dict[str, Any]:
    """Nobody is contacted twice. Lists that a crash kept out of sight, after they were recorded, come to sight."""
    from lcm_ml.decisions.actions.lists import finish, unfinished_of

    run_id, day = sent.item(0, "run_id"), sent.item(0, "as_of_date")
    files = sorted(folder.iterdir()) if folder.exists() else []
    told = (
        f"for {day} {sent.height:,} users are on record since {sent.item(0, 'sent_at'):%F %H:%M} UTC: nothing is done"
    )
    if not files and unfinished_of(folder, run_id).exists():
        files = finish(folder, run_id)
        told = f"for {day} everything was recorded, but not handed out: the lists are there now"
    elif not files:
        told += f"; their lists are not in {folder} any more, ml.actions_sent has them"
    return _told(run_id, day, sent, files) | {
        "dry_run": False,
        "load_id": None,
        "recorded": "before",
        "note": told,
    }
