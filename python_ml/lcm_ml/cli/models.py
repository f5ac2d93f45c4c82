"""`lcm-ml models`: what was trained, what serves, and why."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lcm_ml.cli.console import JsonOption, command, emit, notify, out, progress
from lcm_ml.cli.fit import forced_reason
from lcm_ml.errors import UsageError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="List, show, compare, promote, roll back, export and delete saved models.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
Version = Annotated[str, typer.Argument(help="A version of `lcm-ml models list`.")]


@app.command("list")
def list_versions(
    everything: Annotated[bool, typer.Option("--all", help="Archived, evaluated and deleted ones too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the champion and the challengers, newest first, with what they reached on their test date.

    Example: `lcm-ml models list --all`
    """
    with command(as_json):
        from lcm_ml.registry.catalogue import list_versions
        from lcm_ml.warehouse.connection import connect

        with connect(read_only=True, notify=notify) as con:
            rows = list_versions(con, everything)
        emit({"versions": rows}, as_json, _show_list)


@app.command()
def show(version: Version, as_json: JsonOption = False) -> None:
    """Show one version: its data, code, features, settings, figures and decisions.

    Example: `lcm-ml models show xgboost-20260101T000000000000-abcd`
    """
    with command(as_json):
        from lcm_ml.registry.catalogue import describe_version
        from lcm_ml.warehouse.connection import connect

        with connect(read_only=True, notify=notify) as con:
            found = describe_version(con, version)
        emit(found, as_json, _show_one)


@app.command()
def card(
    version: Annotated[str | None, typer.Argument(help="Default: the champion.")] = None,
    out_path: Annotated[Path | None, typer.Option("--out", help="Write it to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the model card (Markdown): what the model is for, what it knows, how good it is, and its limits.

    Example: `lcm-ml models card --out model_card.md`
    """
    with command(as_json):
        from lcm_ml.registry.card import model_card
        from lcm_ml.warehouse.connection import connect

        with connect(read_only=True, notify=notify) as con:
            text = model_card(con, version)
        if out_path:
            out_path.write_text(text, encoding="utf-8")
        emit({"card": text, "file": out_path}, as_json, lambda found: out.print(found["file"] or text))


@app.command()
def compare(first: Version, second: Version, as_json: JsonOption = False) -> None:
    """Compare two versions on dates that are out of time for both, with the paired interval of the difference.

    Example: `lcm-ml models compare xgboost-2026... logistic-2026...`
    """
    with command(as_json):
        from lcm_ml.registry.catalogue import compare_versions
        from lcm_ml.warehouse.connection import connect

        with connect(read_only=True, notify=notify) as con:
            found = compare_versions(con, first, second)
        emit(found, as_json, lambda result: out.print(result["verdict"]))


@app.command()
def promote(
    version: Version,
    force: Annotated[bool, typer.Option("--force", help="Overrule the rule.")] = False,
    why: Annotated[str | None, typer.Option(help="The reason for --force, kept in ml.model_promotions.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Let a version serve, if the rule allows it. Exit code 1 when it is refused.

    The rule: its log loss, on dates that neither it nor the champion was trained on, is clearly lower (95 % interval
    below 0), or not clearly higher while it learnt from later dates. `--force --why` overrules it.

    Example: `lcm-ml models promote logistic-2026... --force --why 'has to be explained to the auditor'`
    """
    with command(as_json):
        from lcm_ml.registry.catalogue import promote_version

        result = promote_version(version, forced_reason(force, why), notify)
        emit(result, as_json, _show_change)


@app.command()
def rollback(as_json: JsonOption = False) -> None:
    """Let the champion before the present one serve again; a second call goes further back.

    Example: `lcm-ml models rollback`
    """
    with command(as_json):
        from lcm_ml.registry.catalogue import roll_back

        emit(roll_back(notify), as_json, _show_change)


@app.command()
def export(
    version: Annotated[str | None, typer.Argument(help="Default: the champion.")] = None,
    file_format: Annotated[Literal["onnx"], typer.Option("--format", help="Format of the file.")] = "onnx",
    variant: Annotated[
        Literal["full", "pruned", "student", "all"],
        typer.Option(help="The model itself, with fewer trees, a shallow student of it, or all three side by side."),
    ] = "full",
    out_path: Annotated[
        Path | None, typer.Option("--out", help="Write it to this file. Default: the exports folder of the warehouse.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a version as an ONNX file for other programs to score with, and measure it.

    The file takes the encoded features and gives calibrated probabilities; docs/export.md shows how to score with it.
    It is kept only if it scores the users of the test date as the model does, within 0.00001; exit code 1 otherwise.

    Example: `lcm-ml models export --format onnx --variant all`
    """
    with command(as_json):
        from lcm_ml.registry.export import VARIANTS, export_version

        if out_path and variant == "all":
            raise UsageError("--out names one file, --variant all makes three", "leave out --out, or take one variant")
        with progress(f"export to {file_format}", as_json) as advance:
            found = export_version(version, VARIANTS if variant == "all" else (variant,), out_path, advance, notify)
        emit(found, as_json, _show_export)


@app.command()
def delete(
    version: Version,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove a version's files. Its row, figures and scores stay. The champion cannot be deleted.

    Example: `lcm-ml models delete xgboost-2026... --yes`
    """
    with command(as_json):
        from lcm_ml.registry.catalogue import delete_version

        if not yes and (as_json or not typer.confirm(f"delete the files of {version}?", err=True)):
            raise UsageError("nothing was deleted", "add --yes")
        emit(delete_version(version, notify), as_json, lambda result: out.print(f"deleted {result['model_version']}"))


def _show_list(result: dict[str, Any]) -> None:
    from lcm_ml.cli.metric_table import version_table

    if not result["versions"]:
        out.print("nothing was trained yet; next: lcm-ml fit")
        return
    out.print(version_table(result["versions"]))


def _show_one(found: dict[str, Any]) -> None:
    for name in (
        "model_version",
        "model_name",
        "status",
        "created_at",
        "trained_from",
        "trained_to",
        "evaluated_version",
    ):
        out.print(f"{name:<18} {found[name]}")
    manifest = found["manifest"]
    for name in ("data_fingerprint", "code_version", "python", "seed", "calibration", "settings"):
        out.print(f"{name:<18} {manifest.get(name)}")
    out.print(f"{'packages':<18} " + ", ".join(f"{name} {version}" for name, version in manifest["packages"].items()))
    names = [column["name"] for column in manifest["columns"]]
    out.print(f"{'features':<18} {len(names)}: {', '.join(names)}")
    for metric, figures in manifest["test_metrics"].items():
        if figures["value"] is not None:
            low, high = (("-" if figures[end] is None else f"{figures[end]:.4f}") for end in ("ci_low", "ci_high"))
            out.print(f"{metric:<18} {figures['value']:.4f} ({low} to {high}) on {manifest['test_date']}")
    for row in found["decisions"]:
        out.print(f"{row['decided_at']:%Y-%m-%d %H:%M}   {row['action']}: {row['reason']}")


def _show_export(result: dict[str, Any]) -> None:
    from lcm_ml.cli.export_table import export_table

    out.print(
        f"{result['model_version']}, on {result['test_users']:,} users of {result['test_date']}; AUC and log loss of "
        f"{result['measured_on']}, which had not seen that date"
    )
    out.print(export_table(result))
    for note in result["notes"]:
        out.print(f"note: {note}")
    for export in result["exports"]:
        out.print(f"{export['variant']:<8} {export['file']}")


def _show_change(result: dict[str, Any]) -> None:
    out.print(f"champion: {result['model_version']} (before: {result['replaced_version']})")
    out.print(f"why: {result['reason']}")
    out.print("next: lcm-ml score && lcm-ml publish")
