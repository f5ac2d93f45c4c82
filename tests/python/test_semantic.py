"""The metrics of the semantic models, computed from what dbt parsed, against SQL written by hand."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from lifecycle import ROOT, query


class Semantics:
    """The parsed semantic manifest, with just enough of MetricFlow to compute its metrics.

    MetricFlow itself does not install beside the locked libraries; docs/bi.md says what it gave.
    """

    def __init__(self, manifest: dict[str, Any]) -> None:
        self.metrics = {metric["name"]: metric for metric in manifest["metrics"]}
        self.models = manifest["semantic_models"]

    def value(self, path: Path, name: str, by: str | None = None) -> pl.DataFrame:
        """A metric, by one dimension (without its entity) or in total: columns by (where given) and value."""
        return query(path, self._sql(name, by, [])).sort("by")

    def _sql(self, name: str, by: str | None, more: list[str]) -> str:
        metric = self.metrics[name]
        parameters = metric["type_params"]
        where = more + self._filters(metric)
        if metric["type"] == "ratio":
            top, bottom = (
                self._sql(parameters[part]["name"], by, where + self._filters(parameters[part]))
                for part in ("numerator", "denominator")
            )
            return (
                "select bottom.by, cast(coalesce(top.value, 0) as double) / nullif(bottom.value, 0) as value "
                f"from ({bottom}) as bottom left join ({top}) as top on bottom.by is not distinct from top.by"
            )
        assert metric["type"] == "simple"
        wanted = parameters["measure"]["name"]
        model, measure = next(
            (model, measure) for model in self.models for measure in model["measures"] if measure["name"] == wanted
        )
        relation = f"{model['node_relation']['schema_name']}.{model['node_relation']['alias']}"
        if measure["non_additive_dimension"]:
            column = measure["non_additive_dimension"]["name"]
            assert measure["non_additive_dimension"]["window_choice"] == "max"
            where = [*where, f"{column} = (select max({column}) from {relation})"]
        dimensions = {dimension["name"]: dimension["expr"] or dimension["name"] for dimension in model["dimensions"]}
        condition = re.sub(
            r"\{\{\s*Dimension\('\w+?__(\w+)'\)\s*\}\}",
            lambda found: dimensions[found[1]],
            " and ".join(f"({part})" for part in where) or "true",
        )
        assert "{" not in condition
        return (
            f"select {dimensions[by] if by else 'null'} as by, {measure['agg']}({measure['expr']}) as value "
            f"from {relation} where {condition} group by 1"
        )

    @staticmethod
    def _filters(entry: dict[str, Any]) -> list[str]:
        return [part["where_sql_template"] for part in (entry["filter"] or {"where_filters": []})["where_filters"]]


@pytest.fixture(scope="module")
def semantics(tmp_path_factory: pytest.TempPathFactory) -> Semantics:
    target = tmp_path_factory.mktemp("semantic")
    command = [sys.executable, "-m", "dbt.cli.main", "--warn-error", "parse", "--target-path", str(target)]
    environment = os.environ | {"LCM_WAREHOUSE": str(target / "lcm.duckdb")}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    return Semantics(json.loads((target / "semantic_manifest.json").read_text(encoding="utf-8")))


BY_HAND = {
    ("churn_rate", None): "select null as by, avg(is_churned::int) as value from marts.user_churn_labels",
    ("churn_rate", "as_of_date"): (
        "select as_of_date as by, count(*) filter (where next_purchase_date is null) / count(*) as value "
        "from marts.user_churn_labels group by 1"
    ),
    ("retention_rate", "period"): (
        "select period as by, sum(retention * cohort_users) / sum(cohort_users) as value from marts.cohort_retention "
        "where acquisition_channel = '(all)' and period >= 1 group by 1"
    ),
    ("active_users", None): (
        "select null as by, sum(users) as value from marts.lifecycle_weekly "
        "where stage not in ('prospect', 'at_risk', 'dormant', 'churned') "
        "and as_of_date in (select as_of_date from marts.lifecycle_weekly order by 1 desc limit 1)"
    ),
    ("stage_conversion", "from_stage"): (
        "select previous_stage as by, avg((stage != previous_stage)::int) as value from marts.user_lifecycle "
        "where previous_stage is not null group by 1"
    ),
    ("first_purchase_conversion", None): (
        "select null as by, avg((stage != 'prospect')::int) as value from marts.user_lifecycle "
        "where previous_stage = 'prospect'"
    ),
    ("win_back_conversion", None): (
        "select null as by, avg((stage = 'reactivated')::int) as value from marts.user_lifecycle "
        "where previous_stage in ('dormant', 'churned')"
    ),
    ("revenue_at_risk", "risk_band"): (
        "select scores.risk_band as by, sum(scores.churn_probability * worth.expected_amount_90d) as value "
        "from serving.churn_scores_latest as scores inner join serving.user_values_latest as worth "
        "using (user_id, as_of_date) group by 1"
    ),
    ("revenue_at_risk_share", None): (
        "select null as by, sum(churn_probability * expected_amount_90d) / sum(expected_amount_90d) as value "
        "from serving.churn_scores_latest inner join serving.user_values_latest using (user_id, as_of_date)"
    ),
}


@pytest.mark.parametrize(("name", "by"), BY_HAND)
def test_a_metric_is_what_one_would_compute_by_hand(
    semantics: Semantics, sample_run: Path, name: str, by: str | None
) -> None:
    found = semantics.value(sample_run, name, by).drop_nulls("value")
    expected = query(sample_run, BY_HAND[name, by]).sort("by").drop_nulls("value")
    assert found["by"].to_list() == expected["by"].to_list()
    values = [frame["value"].cast(pl.Float64).to_list() for frame in (found, expected)]
    assert values[0] == pytest.approx(values[1], rel=1e-9)
    assert found["value"].sum() > 0


def test_every_metric_is_described_and_each_rate_is_checked(semantics: Semantics) -> None:
    assert all(metric["description"] and metric["label"] for metric in semantics.metrics.values())
    rates = {name for name, metric in semantics.metrics.items() if metric["type"] == "ratio"}
    assert rates <= {name for name, _ in BY_HAND}
