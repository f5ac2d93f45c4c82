{# What engines spell differently. Models call these names; a Spark target adds spark__ versions here. #}

{# Whole days from one date to a later one. #}
{% macro days_between(earlier, later) -%}
    {{ return(adapter.dispatch('days_between', 'lcm')(earlier, later)) }}
{%- endmacro %}

{% macro duckdb__days_between(earlier, later) -%}
    ({{ later }} - {{ earlier }})
{%- endmacro %}

{% macro default__days_between(earlier, later) -%}
    datediff({{ later }}, {{ earlier }})
{%- endmacro %}

{# A date some days later, or earlier with a negative number. #}
{% macro add_days(day, days) -%}
    {{ return(adapter.dispatch('add_days', 'lcm')(day, days)) }}
{%- endmacro %}

{% macro duckdb__add_days(day, days) -%}
    cast({{ day }} + ({{ days }}) * interval 1 day as date)
{%- endmacro %}

{% macro default__add_days(day, days) -%}
    date_add({{ day }}, {{ days }})
{%- endmacro %}

{# A UTC timestamp as the shop's local time. #}
{% macro shop_time(utc) -%}
    {{ return(adapter.dispatch('shop_time', 'lcm')(utc)) }}
{%- endmacro %}

{% macro duckdb__shop_time(utc) -%}
    {%- if var('shop_timezone') == 'UTC' -%}
        {{ utc }}
    {%- else -%}
        (({{ utc }} at time zone 'UTC') at time zone '{{ var("shop_timezone") }}')
    {%- endif -%}
{%- endmacro %}

{% macro default__shop_time(utc) -%}
    from_utc_timestamp({{ utc }}, '{{ var("shop_timezone") }}')
{%- endmacro %}

{# A moment of the shop's local time as UTC: the way back from shop_time. #}
{% macro utc_time(local) -%}
    {{ return(adapter.dispatch('utc_time', 'lcm')(local)) }}
{%- endmacro %}

{% macro duckdb__utc_time(local) -%}
    {%- if var('shop_timezone') == 'UTC' -%}
        {{ local }}
    {%- else -%}
        (({{ local }} at time zone '{{ var("shop_timezone") }}') at time zone 'UTC')
    {%- endif -%}
{%- endmacro %}

{% macro default__utc_time(local) -%}
    to_utc_timestamp({{ local }}, '{{ var("shop_timezone") }}')
{%- endmacro %}

{# A number that changes when any of the row's values does. Order of rows does not matter to all_rows_hash. #}
{% macro row_hash(columns) -%}
    {{ return(adapter.dispatch('row_hash', 'lcm')(columns)) }}
{%- endmacro %}

{% macro duckdb__row_hash(columns) -%}
    hash({{ columns | join(', ') }})
{%- endmacro %}

{% macro default__row_hash(columns) -%}
    xxhash64({{ columns | join(', ') }})
{%- endmacro %}

{#
    The value of `column` that has the largest `weight`; the later value in the alphabet where weights are equal. An
    unknown weight counts as 0: engines would put null first, or last.
#}
{% macro heaviest(column, weight) -%}
    {{ return(adapter.dispatch('heaviest', 'lcm')(column, weight)) }}
{%- endmacro %}

{% macro duckdb__heaviest(column, weight) -%}
    max(case when {{ column }} is not null then {'weight': coalesce({{ weight }}, 0), 'value': {{ column }}} end).value
{%- endmacro %}

{% macro default__heaviest(column, weight) -%}
    max(case when {{ column }} is not null then struct(coalesce({{ weight }}, 0) as weight, {{ column }} as value) end).value
{%- endmacro %}

{# How many different values a whole number from 0 to 126 has, null left out. As bits of one number: no set is kept. #}
{% macro count_distinct_small(number) -%}
    {{ return(adapter.dispatch('count_distinct_small', 'lcm')(number)) }}
{%- endmacro %}

{% macro duckdb__count_distinct_small(number) -%}
    coalesce(bit_count(bit_or(cast(1 as hugeint) << cast({{ number }} as integer))), 0)
{%- endmacro %}

{% macro default__count_distinct_small(number) -%}
    count(distinct {{ number }})
{%- endmacro %}

{# The median within each of many small groups. DuckDB's own median holds 6 KB for every group until the end. #}
{% macro median_by_group(column) -%}
    {{ return(adapter.dispatch('median_by_group', 'lcm')(column)) }}
{%- endmacro %}

{% macro duckdb__median_by_group(column) -%}
    list_median(list({{ column }}) filter (where {{ column }} is not null))
{%- endmacro %}

{% macro default__median_by_group(column) -%}
    median({{ column }})
{%- endmacro %}

{#
    The relation if it is there, else none. Not through adapter.get_relation(): dbt caches a schema one relation after
    another, and a second thread that asks meanwhile is told that those to come do not exist.
#}
{% macro existing_relation(relation) -%}
    {{ return(adapter.dispatch('existing_relation', 'lcm')(relation)) }}
{%- endmacro %}

{% macro duckdb__existing_relation(relation) -%}
    {%- set found = run_query(
        "select 1 from information_schema.tables where lower(table_catalog) = lower('" ~ relation.database
        ~ "') and lower(table_schema) = lower('" ~ relation.schema
        ~ "') and lower(table_name) = lower('" ~ relation.identifier ~ "')"
    ) -%}
    {{ return(relation if found.rows | length > 0 else none) }}
{%- endmacro %}

{% macro default__existing_relation(relation) -%}
    {{ return(adapter.get_relation(relation.database, relation.schema, relation.identifier)) }}
{%- endmacro %}
