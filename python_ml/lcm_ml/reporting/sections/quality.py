"""The rows and the model versions that the report rests on."""

import duckdb

from lcm_ml.registry.catalogue import list_versions
from lcm_ml.reporting.section import MakeSection, Section, Table, count, number, rows_of

BUILD, FIT = "dbt build", "lcm-ml fit"
KINDS = ("rows_in", "kept", "duplicate", "quarantined", "suppressed", "pruned")


def data_quality(con: duckdb.DuckDBPyConnection) -> Section:
    """Rows in = kept + duplicates + quarantined, and which rules they broke."""
    title = "Data quality"
    text = (
        "Nothing is dropped silently: a row that breaks a rule is kept in staging.quarantined_events with its rule and "
        "its original values. Noted rows are kept, but worth a look."
    )
    rows = rows_of(
        con, "marts.data_quality", "select * from marts.data_quality order by load_id, kind, row_count desc, rule"
    )
    if rows.is_empty():
        return Section("quality", title, text, filled_by=BUILD)
    found = rows.to_dicts()
    totals = {kind: sum(row["row_count"] for row in found if row["kind"] == kind) for kind in KINDS}
    adds_up = totals["rows_in"] == sum(totals[kind] for kind in KINDS[1:])
    gone = f" + {totals['suppressed']:,} of forgotten users" if totals["suppressed"] else ""
    gone += f" + {totals['pruned']:,} pruned" if totals["pruned"] else ""
    statement = (
        f"{totals['rows_in']:,} rows in {'=' if adds_up else 'are not'} {totals['kept']:,} kept + "
        f"{totals['duplicate']:,} duplicates + {totals['quarantined']:,} quarantined{gone}."
    )
    table = Table(
        "Rows by load, kind and rule",
        ("load", "kind", "rule", "rows"),
        tuple((row["load_id"], row["kind"], row["rule"], count(row["row_count"])) for row in found),
        labels=3,
    )
    return Section(
        "quality",
        title,
        text,
        table=table,
        notes=(statement,) if adds_up else (),
        warnings=() if adds_up else (statement,),
    )


def versions(con: duckdb.DuckDBPyConnection) -> Section:
    """The model that serves, and those that could."""
    title = "Model versions"
    text = (
        "The champion serves; challengers could. Each has a model card (what it is for, what it learnt from, how good "
        "it is, its limits) beside this file: model_cards/VERSION.md."
    )
    found = list_versions(con, everything=False)
    if not found:
        return Section("versions", title, text, filled_by=FIT)
    table = Table(
        title,
        ("version", "status", "trained on", "features", "test date", "AUC", "log loss"),
        tuple(
            (
                row["model_version"],
                row["status"],
                f"{row['trained_from']}\nto {row['trained_to']}",
                count(row["n_features"]),
                str(row["test_date"] or "-"),
                number(row["auc"]),
                number(row["log_loss"]),
            )
            for row in found
        ),
        labels=2,
        marked=frozenset(place for place, row in enumerate(found) if row["status"] == "champion"),
    )
    return Section("versions", title, text, table=table)


SECTIONS: tuple[MakeSection, ...] = (data_quality, versions)
