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

{# The value of `column` that has the largest `weight`; the later value in the alphabet where weights are equal. #}
{% macro heaviest(column, weight) -%}
    {{ return(adapter.dispatch('heaviest', 'lcm')(column, weight)) }}
{%- endmacro %}

{% macro duckdb__heaviest(column, weight) -%}
    max(case when {{ column }} is not null then {'weight': {{ weight }}, 'value': {{ column }}} end).value
{%- endmacro %}

{% macro default__heaviest(column, weight) -%}
    max(case when {{ column }} is not null then struct({{ weight }} as weight, {{ column }} as value) end).value
{%- endmacro %}
