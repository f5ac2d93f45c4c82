{# `as_of` and `as_of_ts` as SQL: the day after the newest event's day, and that event's moment. #}
{% macro current_moment() -%}
    {%- set nothing = {'as_of': "date '1900-01-01'", 'as_of_ts': 'cast(null as timestamp)'} -%}
    {%- if not execute -%}{{ return(nothing) }}{%- endif -%}
    {%- set found = run_query(
        'select max(event_time), ' ~ add_days('max(event_date)', 1) ~ ' from ' ~ ref('int_events')
    ).rows[0] -%}
    {%- if found[0] is none -%}{{ return(nothing) }}{%- endif -%}
    {{ return({'as_of': "date '" ~ found[1] ~ "'", 'as_of_ts': "timestamp '" ~ found[0] ~ "'"}) }}
{%- endmacro %}

{# pre-hook, in the model's own transaction: what is about to be computed goes, and visitors that became users. #}
{% macro forget_touched_users() -%}
    {#- Before any return, so that dbt draws the edges. -#}
    {%- set edges = [ref('int_events'), ref('stg_identities')] -%}
    {%- if not execute or not is_incremental() -%}{{ return('') }}{%- endif -%}
    {%- set now = current_moment() -%}
    delete from {{ this }}
    where
        user_id in ({{ touched_users(now.as_of) }})
        or user_id in (select anonymous_id from {{ ref('stg_identities') }} where linked_date < {{ now.as_of }})
{%- endmacro %}

{# The newest load that the rows know of, as SQL. #}
{% macro newest_load() -%}
    {{ return("(select max(load_id) from meta.processed_loads where model_name = 'int_events')") }}
{%- endmacro %}
