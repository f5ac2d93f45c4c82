"""`lcm-ml publish`: let BI tools see what the warehouse holds."""

from typing import Annotated, Any

import typer

from lcm_ml.cli.console import Advance, JsonOption, command, emit, notify, out, progress

# Share of the progress bar before a server is loaded.
WRITTEN = 0.3

ToOption = Annotated[
    str | None,
    typer.Option(
        "--to",
        envvar="LCM_PUBLISH_TO",
        show_envvar=True,
        help="Load the snapshot into this PostgreSQL database too: postgres://USER@HOST/DATABASE. "
        "A password belongs in PGPASSWORD or ~/.pgpass.",
    ),
]
SchemaOption = Annotated[str, typer.Option("--schema", help="The schema of --to that holds the tables.")]


def publish(
    keep: Annotated[
        int | None, typer.Option(help="Snapshots that stay, this one counted. Default: the var kept_snapshots.", min=1)
    ] = None,
    to: ToOption = None,
    schema: SchemaOption = "lcm",
    as_json: JsonOption = False,
) -> None:
    """Publish the serving relations as one immutable snapshot, which readers switch to in one step.

    With --to, PostgreSQL gets it as well: the tables are loaded beside the old ones, then take their names in one
    transaction. docs/bi.md shows how tools connect.

    Example: `lcm-ml publish --to postgres://lcm@db.example/shop`
    """
    with command(as_json):
        with progress("publish", as_json) as advance:
            result = run_publish(advance, keep, to, schema)
        emit(result, as_json, show_published)


def run_publish(
    advance: Advance, keep: int | None = None, to: str | None = None, schema: str = "lcm"
) -> dict[str, Any]:
    """Publish a snapshot, write the report of it, and load it into PostgreSQL when `to` names a database.

    Raises:
        LcmError: when nothing is built, a file cannot be written, or the server refuses: then the snapshot is
            published, and the server has the tables it had. The same where only the report cannot be written.
    """
    from lcm_ml.errors import LcmError
    from lcm_ml.publishing.catalogue import publishing_lock
    from lcm_ml.publishing.postgres import Server
    from lcm_ml.publishing.snapshot import publish
    from lcm_ml.reporting.report import write_report
    from lcm_ml.warehouse.connection import connect, writer_lock

    server = Server.of(to, schema) if to else None
    share = WRITTEN if server else 1.0
    with writer_lock("lcm-ml publish", notify), publishing_lock("lcm-ml publish", notify) as folder:
        with connect(read_only=True, notify=notify, beside_frames=False) as con:
            manifest = publish(con, folder, keep, lambda what, done: advance(what, share * done))
            try:
                report = write_report(con, manifest)
            except (OSError, LcmError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise LcmError(
                    f"snapshot {manifest['snapshot_id']} is published, but its report could not be written: {reason}; "
                    "the report is still the one before",
                    "mend that, then `lcm-ml publish` again",
                ) from error
        loaded = None
        if server:
            snapshot = folder / "snapshots" / manifest["snapshot_id"]
            loaded = server.load(snapshot, lambda what, done: advance(f"to {what}", share + (1 - share) * done))
    return {
        "snapshot_id": manifest["snapshot_id"],
        "rows": {name: relation["rows"] for name, relation in manifest["relations"].items()},
        "folder": manifest["folder"],
        "views": manifest["views"],
        "report": report,
        "loaded": loaded,
    }


def show_published(published: dict[str, Any]) -> None:
    """Tell people where the snapshot is."""
    out.print(f"published  {published['snapshot_id']}: {published['folder']}")
    out.print(f"           for BI: {published['views']}")
    show_loaded(published["loaded"])
    out.print(f"report     {published['report']}")


def show_loaded(loaded: dict[str, Any] | None) -> None:
    """Tell people what a server got."""
    if loaded:
        out.print(
            f"           {loaded['relations']} tables, {loaded['rows']:,} rows in {loaded['to']}, "
            f"schema {loaded['schema']}",
        )
