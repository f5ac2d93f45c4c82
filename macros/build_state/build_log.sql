{#
    on-run-start: create what is missing in raw, ml and meta; record the settings; open a row in meta.builds.
    The contracts are the source files, so a table is described once.
#}
{% macro open_build() -%}
    {%- if not execute -%}{{ return('') }}{%- endif -%}
    {%- do create_contract_tables() -%}
    {%- do check_warehouse_version() -%}
    {%- do check_kept_settings() -%}
    {%- if flags.WHICH not in ['build', 'run', 'retry'] -%}
        {{ return('') }}
    {%- endif -%}
    {#- Not source_mode(): looking up a relation would open a transaction, which dbt rolls back after this hook. -#}
    {%- set mode = 'external' if is_external() else mode_of_own_tables() -%}
    {%- do log('lcm: reading ' ~ {
        'sample': 'the sample seeds (nothing was loaded: see `lcm-ml load --help`)',
        'raw': 'schema raw',
        'external': 'your tables in ' ~ var('raw_schema'),
    }[mode], info=true) -%}
    {%- do record_settings() -%}
    {%- do run_query(
        "insert into meta.builds (build_id, command, target_name, source_mode, started_at, status) values ('"
        ~ invocation_id ~ "', '" ~ env_var('LCM_BUILD_COMMAND', flags.WHICH) ~ "', '" ~ target.name ~ "', '" ~ mode
        ~ "', cast(current_timestamp as timestamp), 'open')"
    ) -%}
    {{ return('') }}
{%- endmacro %}

{# on-run-end: close the row. A killed dbt leaves it open, and lcm-ml refuses the marts until the next build. #}
{% macro close_build(results) -%}
    {%- if not execute or flags.WHICH not in ['build', 'run', 'retry'] -%}{{ return('') }}{%- endif -%}
    {%- set failed = [] -%}
    {%- for result in results if result.status | string in ['error', 'fail', 'runtime error', 'partial success'] -%}
        {%- do failed.append(result.node.name) -%}
    {%- endfor -%}
    {%- set failed_nodes = "'" ~ failed | join(', ') ~ "'" if failed else 'null' -%}
    update meta.builds
    set
        finished_at = cast(current_timestamp as timestamp),
        status = '{{ "failed" if failed else "ok" }}',
        failed_nodes = {{ failed_nodes }}
    where build_id = '{{ invocation_id }}'
{%- endmacro %}

{# Creates the tables that are missing, and the columns that came to a contract after its table was made. #}
{% macro create_contract_tables() -%}
    {%- set have = {} -%}
    {%- for row in run_query(
        "select table_schema || '.' || table_name, list(column_name) from information_schema.columns "
        ~ "where table_catalog = current_database() group by 1"
    ).rows -%}
        {%- do have.update({row[0]: row[1]}) -%}
    {%- endfor -%}
    {%- set schemas = {'raw': 'raw', 'load_log': 'raw', 'kept': 'raw', 'ml': 'ml', 'meta': 'meta'} -%}
    {%- for schema in schemas.values() | unique -%}
        {%- do run_query('create schema if not exists ' ~ schema) -%}
    {%- endfor -%}
    {%- for node in graph.sources.values() if node.source_name in schemas -%}
        {%- set schema = schemas[node.source_name] -%}
        {%- set columns = [] -%}
        {%- for column in node.columns.values() -%}
            {%- do columns.append(column.name ~ ' ' ~ column.data_type) -%}
        {%- endfor -%}
        {%- set table = schema ~ '.' ~ node.name -%}
        {#- A statement that does nothing costs as much as one that does: in all, more than a second of a build. -#}
        {%- if table not in have -%}
            {%- do run_query('create table ' ~ table ~ ' (' ~ columns | join(', ') ~ ')') -%}
        {%- endif -%}
        {%- for column in columns if table in have and column.split(' ')[0] not in have[table] -%}
            {%- do run_query('alter table ' ~ table ~ ' add column ' ~ column) -%}
        {%- endfor -%}
    {%- endfor -%}
{%- endmacro %}

{# The layout of the tables: WAREHOUSE_VERSION in warehouse/connection.py says the same. #}
{% macro warehouse_version() -%}{{ return(2) }}{%- endmacro %}

{% macro check_warehouse_version() -%}
    {%- set found = run_query('select max(version) from meta.warehouse_version').rows[0][0] -%}
    {%- if found is none -%}
        {%- do run_query(
            'insert into meta.warehouse_version values (' ~ warehouse_version() ~ ', cast(current_timestamp as timestamp))'
        ) -%}
    {%- elif found > warehouse_version() -%}
        {{ exceptions.raise_compiler_error(
            'this warehouse has layout version ' ~ found ~ ', newer than the ' ~ warehouse_version()
            ~ ' that this project knows. Upgrade this checkout, or set LCM_WAREHOUSE to another path.'
        ) }}
    {%- elif found < warehouse_version() -%}
        {{ exceptions.raise_compiler_error(
            'this warehouse was made by an earlier version of lcm: `lcm-ml upgrade` backs it up and brings it along.'
        ) }}
    {%- endif -%}
{%- endmacro %}

{# Names of the vars that a build records: those of dbt_project.yml. #}
{% macro setting_names() -%}
    {{ return([
        'raw_database', 'raw_schema', 'raw_identifiers', 'raw_columns',
        'shop_timezone', 'data_end_date', 'min_day_volume_share', 'as_of_anchor_date', 'as_of_step_days',
        'min_history_days', 'as_of_count', 'max_training_rows', 'active_window_days', 'lapsed_window_days', 'churn_horizon_days',
        'base_currency', 'event_time_floor', 'future_tolerance_hours', 'max_quantity', 'max_amount', 'id_case',
        'unknown_products', 'drop_identical_events', 'bot_z', 'reseller_z', 'exclude_flagged_users',
        'new_window_days', 'reactivated_window_days', 'loyal_min_purchase_days', 'min_gaps_for_rhythm',
        'population_gap_quantile', 'default_gap_days', 'max_typical_gap_days', 'at_risk_gaps', 'at_risk_min_days',
        'dormant_gaps', 'dormant_min_days', 'churned_gaps', 'churned_min_days',
        'interest_weights', 'interest_half_life_days', 'interest_drift_z', 'insights',
        'recommend_count', 'recommend_in_stock_days', 'recommend_repeats', 'recommend_max_per_category',
        'non_model_features', 'extra_feature_models', 'candidate_features', 'custom_estimators', 'decision_threshold', 'risk_band_high', 'risk_band_medium',
        'actionable_features', 'contact_cost', 'saved_value', 'contact_success_rate', 'value_discount_rate', 'min_group_size',
        'stale_after_hours', 'max_quarantined_share', 'fairness_max_gap', 'rules_min_support', 'kept_snapshots', 'triage_weights', 'intent_urgency',
        'event_retention_days', 'score_retention_days', 'gross_margin', 'max_contacts_28d', 'action_holdout_share',
    ]) }}
{%- endmacro %}

{# Settings that only lcm-ml reads: a change of theirs rebuilds no model. #}
{% macro settings_without_effect_on_models() -%}
    {{ return([
        'as_of_count', 'max_training_rows', 'insights', 'non_model_features', 'extra_feature_models', 'candidate_features', 'custom_estimators', 'decision_threshold',
        'risk_band_high', 'risk_band_medium', 'actionable_features', 'contact_cost', 'saved_value',
        'contact_success_rate', 'value_discount_rate', 'min_group_size', 'fairness_max_gap', 'stale_after_hours',
        'rules_min_support', 'kept_snapshots', 'event_retention_days', 'score_retention_days', 'triage_weights', 'intent_urgency',
        'max_quarantined_share', 'gross_margin', 'max_contacts_28d', 'action_holdout_share',
        'recommend_count', 'recommend_in_stock_days', 'recommend_repeats', 'recommend_max_per_category',
        'data_end_date', 'min_day_volume_share'
    ]) }}
{%- endmacro %}

{% macro record_settings() -%}
    {%- set rows = [] -%}
    {%- for name in setting_names() -%}
        {%- do rows.append("('" ~ name ~ "', '" ~ tojson(var(name)) | replace("'", "''") ~ "')") -%}
    {%- endfor -%}
    {%- do run_query('create or replace table meta.settings as select * from (values ' ~ rows | join(', ') ~ ') as s (name, value)') -%}
{%- endmacro %}
