"""`lcm-ml forget`: remove users everywhere, and prove it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lcm_ml.cli.console import JsonOption, command, confirm, emit, err, notify, out, progress
from lcm_ml.errors import LcmError, UsageError


def forget(
    user_id: Annotated[str | None, typer.Argument(help="The user, as the tables have it.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="A file of ids, one in each line: all are forgotten in one pass.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Only look whether anything is left of them.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Forget everybody on record once more, as after a backup was restored.")
    ] = False,
    check_record: Annotated[bool, typer.Option("--check-record", help="Only check the record for changes.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    allow_unknown: Annotated[bool, typer.Option("--allow-unknown", help="Go on with ids that no table has.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove users from all tables, snapshots and files, for good, and keep their rows out of later loads.

    Visitors linked to a user go with it. It can be stopped at any moment: run it again, and it goes on.
    docs/privacy.md says what happens in which order, and what is out of reach. --verify ends with 1 when it finds
    something.

    Example: `lcm-ml forget customer-4711`, then `lcm-ml forget customer-4711 --verify`
    """
    with command(as_json):
        if check_record:
            emit(run_check_record(), as_json, lambda found: out.print(f"{found['records']} records, unchanged"))
            return
        if again and (user_id or file):
            raise UsageError("--again names the users itself", "leave USER_ID and --file out")
        ids = _ids(user_id, file)
        if verify:
            found = run_verify(ids, as_json)
            emit(found, as_json, _show_found)
            raise typer.Exit(1 if found["found"] or found["record_problems"] else 0)
        result = run_forget(ids, again, dry_run, allow_unknown, yes, as_json)
        emit(result, as_json, _show_plan if dry_run else _show_done)
        if result.get("left"):
            raise typer.Exit(1)


def run_forget(
    ids: list[str], again: bool, dry_run: bool, allow_unknown: bool, yes: bool, as_json: bool
) -> dict[str, Any]:
    """Finish a pass that was stopped, then plan one for the users, ask, and carry it out.

    Raises:
        UsageError: when no id is given, or there is nobody to ask.
        LcmError: when nothing is held of a user, or a step fails.
    """
    from lcm_ml.privacy.forget import forget as carry_out
    from lcm_ml.privacy.forget import pending, survey, to_forget_again

    if not dry_run and (unfinished := pending()) is not None:
        notify("going on with the pass that was stopped")
        with progress("forget", as_json) as advance:
            result = carry_out(unfinished, advance, notify)
        if not again and set(ids) <= set(unfinished.ids):
            return result
    with progress("look", as_json) as advance:
        plan = survey(to_forget_again(notify) if again else ids, advance, notify, again=again)
    if dry_run:
        return plan.described
    if plan.unknown and not allow_unknown:
        raise LcmError(
            f"no table has {len(plan.unknown)} of {plan.asked} users, e.g. {plan.unknown[0]!r}; nothing was changed",
            "check the id (`lcm-ml pseudonym` where loads hide ids); --allow-unknown cleans files and later loads",
        )
    confirm(
        "Forget them? This cannot be undone.",
        "forgetting cannot be undone, and nobody can be asked here",
        yes,
        as_json,
        lambda: _show_plan(plan.described),
    )
    with progress("forget", as_json) as advance:
        return carry_out(plan, advance, notify)


def run_verify(ids: list[str], as_json: bool = False) -> dict[str, Any]:
    """Look for users everywhere, and check the record.

    Raises:
        UsageError: when no id is given.
        LcmError: when there is no warehouse.
    """
    from lcm_ml.privacy import keys
    from lcm_ml.privacy.verify import look

    if not ids:
        raise UsageError("no user was named", "lcm-ml forget USER_ID --verify")
    with progress("verify", as_json) as advance:
        found = look(ids, keys.keyed_hash(create=True), advance, notify)
    return {
        "found": found.own,
        "outside": found.outside,
        "files_searched": found.searched,
        "short_ids": found.short,
        "record_problems": run_check_record(fail=False)["problems"],
    }


def run_check_record(*, fail: bool = True) -> dict[str, Any]:
    """Check the record of forgotten users.

    Raises:
        LcmError: when it was changed, unless `fail` is false.
    """
    from lcm_ml.privacy.record import entries
    from lcm_ml.privacy.verify import check_record
    from lcm_ml.warehouse.connection import connect

    with connect(read_only=True, notify=notify) as con:
        problems = check_record(con)
    if problems and fail:
        raise LcmError("; ".join(problems), "compare the record with a copy of it")
    return {"records": len(entries()), "problems": problems}


def _ids(user_id: str | None, file: Path | None) -> list[str]:
    named = [user_id] if user_id else []
    if file is None:
        return named
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise LcmError(f"{file} is no text in UTF-8", "write one id in each line") from None
    return [*named, *dict.fromkeys(line.strip() for line in lines if line.strip())]


def _show_plan(plan: dict[str, Any]) -> None:
    visitors = f", {plan['visitors']} visitors linked to them" if plan["visitors"] else ""
    unknown = f"; of {plan['unknown']} nothing is held" if plan["unknown"] else ""
    out.print(f"{plan['users']} users{visitors}{unknown}")
    for name, n in plan["rows"].items():
        out.print(f"{n:>12,}  {name}")
    for path in plan["files"]:
        out.print(f"{'file':>12}  {path}")
    for model in plan["models"]:
        learnt = f"{model['model_version']} ({model['status']}) was trained with {model['rows']} rows of them"
        out.print(f"{'model':>12}  {learnt}")
    _show_outside(plan)


def _show_outside(result: dict[str, Any]) -> None:
    for path in result["outside"]:
        out.print(f"{'outside':>12}  {path}: it was loaded; remove the users there yourself")


def _show_done(result: dict[str, Any]) -> None:
    _show_plan(result | {"files": []})
    for path, outcome in result["outcomes"].items():
        out.print(f"{outcome:>12}  {path}")
    for snapshot in result["snapshots"]:
        out.print(f"{'rewritten':>12}  snapshot {snapshot}")
    out.print(f"forgotten; record {result['record']}")
    if result["models"]:
        out.print("next: lcm-ml fit (no model keeps an id, but these learnt from their rows)")
    for place in result["left"]:
        err.print(f"left: {place}", style="bold red")
    if result["left"]:
        err.print("  next: remove these yourself, then lcm-ml forget USER_ID --verify")


def _show_found(result: dict[str, Any]) -> None:
    for place in result["found"]:
        out.print(f"found: {place}")
    _show_outside(result)
    if not result["found"]:
        out.print(f"nothing found in the tables and in {result['files_searched']} files")
    if result["short_ids"]:
        out.print(f"{result['short_ids']} ids are too short for free text: they were looked for in columns of users")
    for problem in result["record_problems"]:
        err.print(f"record: {problem}", style="bold red")
