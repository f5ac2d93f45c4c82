"""`lcm-ml segment`: kinds of users by what they do."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lcm_ml.cli.console import Advance, AsOfOption, JsonOption, command, emit, notify, out, progress
from lcm_ml.errors import UsageError

if TYPE_CHECKING:
    from datetime import date

    import duckdb
    import polars as pl

    from lcm_ml.insights.segments.clustering import Method
    from lcm_ml.insights.segments.segmentation import Options, Segmentation

Methods = Literal["kmeans", "ward", "both"]


def segment(
    as_of: AsOfOption = None,
    method: Annotated[Methods, typer.Option(help="k-means, Ward's hierarchical clustering, or both.")] = "kmeans",
    clusters: Annotated[int | None, typer.Option(help="So many segments. Default: chosen.", min=2, max=50)] = None,
    min_clusters: Annotated[int, typer.Option(help="Choose from so many segments ...", min=2, max=50)] = 3,
    max_clusters: Annotated[int, typer.Option(help="... to so many.", min=2, max=50)] = 8,
    seed: Annotated[int, typer.Option(help="Of samples and starting centres.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Group users by what they do: how recently, how often, how much, at which prices, and how they browse.

    The number of segments is the one with the best silhouette among those that come out again on half of the users. A
    segment keeps its id from one date to the next, as long as its users stay together.

    Example: `lcm-ml segment --method both --max-clusters 6`
    """
    with command(as_json):
        with progress("segment", as_json) as advance:
            result = run_segment(as_of, advance, method, clusters, min_clusters, max_clusters, seed)
        emit(result, as_json, _show)


def run_segment(
    as_of: datetime | None,
    advance: Advance,
    method: Methods = "kmeans",
    clusters: int | None = None,
    min_clusters: int = 3,
    max_clusters: int = 8,
    seed: int = 0,
) -> dict[str, Any]:
    """Segment by each method, write, tell.

    Raises:
        UsageError: when the range of --min-clusters and --max-clusters is empty.
        LcmError: when the marts cannot be read or the warehouse cannot be written.
    """
    from sklearn.metrics import adjusted_rand_score

    from lcm_ml.insights.segments.segmentation import Options

    if min_clusters > max_clusters:
        raise UsageError(
            f"--min-clusters {min_clusters} is more than --max-clusters {max_clusters}", "turn them around"
        )
    methods: tuple[Method, ...] = ("kmeans", "ward") if method == "both" else (method,)
    found = {}
    for number, each in enumerate(methods):
        options = Options(each, clusters, min_clusters, max_clusters, seed)

        def told(what: str, share: float, done: int = number) -> None:
            advance(f"{methods[done]}, {what}", (done + share) / len(methods))

        found[each] = _run(as_of, options, told)
    first = found[methods[0]][1]
    agreement = None
    if len(methods) == 2 and first.users.height:
        labels = [found[each][1].users.sort("user_id")["segment_id"].to_numpy() for each in methods]
        agreement = float(adjusted_rand_score(*labels))
    return {
        "as_of_date": found[methods[0]][0],
        "users": first.users.height,
        "left_out": first.left_out,
        "dropped": list(first.dropped),
        "agreement": agreement,
        "methods": [_told(each, *found[each][1:]) for each in methods],
        "note": first.note,
    }


def _run(as_of: datetime | None, options: "Options", advance: Advance) -> "tuple[date, Segmentation, str]":
    """One method: each writes its own rows, in a run of its own."""
    from lcm_ml.frames.behaviour import (
        behaviour_at,
        highest_segment_id,
        segments_after,
        segments_at,
        segments_before,
    )
    from lcm_ml.insights.segments.segmentation import segment
    from lcm_ml.registry.runs import Run, run_capability

    run = Run(
        "segment",
        {
            "method": options.method,
            "clusters": options.clusters,
            "min_clusters": options.least,
            "max_clusters": options.most,
        },
        options.seed,
    )

    def compute(con: "duckdb.DuckDBPyConnection", day: "date") -> "tuple[dict[str, pl.DataFrame], Segmentation]":
        before = segments_before(con, day, options.method)
        carried = segments_at(con, day, options.method) or before or segments_after(con, day, options.method)
        advance("clustering", 0.1)
        found = segment(behaviour_at(con, day), options, carried, before, highest_segment_id(con, options.method))
        advance("writing", 0.9)
        tables = {
            "user_segments": found.users,
            "segment_profiles": found.profiles,
            "segment_features": found.features,
            "segment_choices": found.choices,
            "segment_migrations": found.migrations,
        }
        return tables, found

    day, found = run_capability(run, as_of, compute, notify, method=options.method)
    return day, found, run.run_id


def _told(method: str, found: "Segmentation", run_id: str) -> dict[str, Any]:
    return {
        "method": method,
        "run_id": run_id,
        "silhouette": found.silhouette if found.users.height else None,
        "choices": found.choices.to_dicts(),
        "segments": found.profiles.to_dicts(),
        "moved": sum(
            row["n_users"]
            for row in found.migrations.drop_nulls().to_dicts()
            if row["from_segment_id"] != row["to_segment_id"]
        ),
        "previous_as_of_date": found.migrations["previous_as_of_date"].max() if found.migrations.height else None,
    }


def _show(result: dict[str, Any]) -> None:
    from rich.table import Table

    if result["note"]:
        out.print(f"no segments at {result['as_of_date']}: {result['note']}")
        return
    out.print(f"{result['users']:,} users at {result['as_of_date']}", end="")
    out.print(f"; {result['left_out']:,} look like bots or resellers and took no part in finding the segments")
    if result["dropped"]:
        out.print(f"left out, the same for everybody or as another: {', '.join(result['dropped'])}")
    for found in result["methods"]:
        table = Table("id", "segment", "users", "share", "silhouette")
        for row in found["segments"]:
            silhouette = "-" if row["silhouette"] is None else f"{row['silhouette']:.2f}"
            table.add_row(str(row["segment_id"]), row["name"], f"{row['n_users']:,}", f"{row['share']:.1%}", silhouette)
        out.print(f"\n{found['method']}: {len(found['segments'])} segments, silhouette {found['silhouette']:.3f}")
        out.print(table)
        for row in found["choices"]:
            out.print(
                f"{'>' if row['is_chosen'] else ' '} {row['clusters']} segments: silhouette {row['silhouette']:.3f}, "
                f"stability {row['stability']:.2f}"
            )
        if found["previous_as_of_date"]:
            out.print(f"{found['moved']:,} users changed segment since {found['previous_as_of_date']}")
    if result["agreement"] is not None:
        out.print(f"\nthe two methods agree with an adjusted Rand index of {result['agreement']:.2f}")
