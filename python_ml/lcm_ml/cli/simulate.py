"""`lcm-ml simulate`: a shop whose truth is known."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lcm_ml.cli.console import JsonOption, command, emit, out, progress
from lcm_ml.errors import UsageError


def simulate(
    users: Annotated[int, typer.Option(help="Users to simulate.", min=1)] = 10_000,
    days: Annotated[int, typer.Option(help="Days of history.", min=1)] = 365,
    seed: Annotated[int, typer.Option(help="Same seed, same shop.")] = 0,
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the files.")] = Path("data/simulated"),
    preset: Annotated[
        Literal["shop", "plain", "types"],
        typer.Option(help="shop (everything), plain (purchases alone, exactly BG/NBD) or types (five kinds of user)."),
    ] = "shop",
    end: Annotated[datetime, typer.Option(help="First day after the history.", formats=["%Y-%m-%d"])] = datetime(
        2026, 1, 1
    ),
    dirty: Annotated[
        float | None, typer.Option(help="Share of dirty rows. Default: 0.01 in shop, 0 in plain.", min=0.0, max=0.5)
    ] = None,
    sensitive_effect: Annotated[
        bool, typer.Option("--sensitive-effect", help="Let age_band, a sensitive attribute, influence purchases.")
    ] = False,
    file_format: Annotated[Literal["parquet", "csv"], typer.Option("--format", help="Of the files.")] = "parquet",
    as_json: JsonOption = False,
) -> None:
    """Write the raw tables of a simulated shop, and its truth in a folder of its own (OUT/truth).

    The truth (purchase rates, death times, treatment effects, dirty rows) is for tests: nothing loads it.

    Example: `lcm-ml simulate --users 5000 --days 400 --seed 1 --out data/sim`
    """
    with command(as_json):
        from lcm_ml.sources import simulate as simulator

        try:
            config = simulator.SimulationConfig(
                users=users,
                days=days,
                seed=seed,
                preset=preset,
                end_date=end.date(),
                dirty=dirty,
                sensitive_effect=sensitive_effect,
            )
        except ValueError as error:
            raise UsageError(str(error)) from None
        with progress("simulate", as_json) as advance:
            shop = simulator.simulate(config, progress=advance)
            paths = simulator.write(shop, out_dir, file_format)
        emit({"out": out_dir, "files": paths, "rows": shop.row_counts()}, as_json, _show)


def _show(result: dict[str, Any]) -> None:
    for name, rows in result["rows"].items():
        out.print(f"{rows:>12,}  {name}")
    out.print(f"in {result['out']}; the truth is in {result['out']}/truth")
    out.print(f"next: lcm-ml load files --events '{result['files']['events']}' ...")
