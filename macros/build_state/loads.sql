{#
    Incremental by load: which loads a model holds, which it lacks, and which it holds but its source does not any more.
    The source is raw, or, with meta: {loads_from: <model>}, the model before it: a model says of itself alone what it
    holds, so that a killed build or `dbt run --select` never makes one believe that it has what it never saw.
#}

{% macro processed_loads(model_name) -%}
    {%- if not execute -%}{{ return([]) }}{%- endif -%}
    {%- set found = run_query(
        "select load_id from meta.processed_loads where model_name = '" ~ model_name ~ "' order by load_id"
    ) -%}
    {{ return(found.columns[0].values() | list) }}
{%- endmacro %}

{% macro loads_at_hand() -%}
    {%- set before = model.config.meta.get('loads_from') -%}
    {{ return(processed_loads(before) if before else current_loads()) }}
{%- endmacro %}

{% macro pending_loads() -%}
    {%- set loads = loads_at_hand() -%}
    {{ return(loads | reject('in', processed_loads(model.name)) | list if is_incremental() else loads) }}
{%- endmacro %}

{% macro stale_loads() -%}
    {%- set processed = processed_loads(model.name) -%}
    {{ return(processed | reject('in', loads_at_hand()) | list if processed else []) }}
{%- endmacro %}

{# post-hook, in the model's own transaction. #}
{% macro record_loads() -%}
    {%- if not execute -%}{{ return('') }}{%- endif -%}
    delete from meta.processed_loads where model_name = '{{ model.name }}';
    {%- for load_id in loads_at_hand() %}
    insert into meta.processed_loads values ('{{ model.name }}', '{{ load_id }}');
    {%- endfor %}
{%- endmacro %}

{# The loads as a list for `in (...)`; an impossible one where there is none, so that the SQL stays valid. #}
{% macro load_list(loads) -%}
    {%- if loads -%}'{{ loads | join("', '") }}'{%- else -%}''{%- endif -%}
{%- endmacro %}

{#
    For models that sum events by user and shop day (or by user): a condition that holds for the rows of `alias` that
    the new loads reach, all rows where the model is made anew. `day` is its column of the day; none: the whole user.
#}
{% macro is_reached_by_new_loads(alias, day='event_date') -%}
    {%- if not is_incremental() -%}
        true
    {%- else -%}
        exists (
            select 1
            from {{ ref('int_events') }} as new_rows
            where
                new_rows.load_id in ({{ load_list(pending_loads()) }})
                and new_rows.user_id = {{ alias }}.user_id
                {% if day -%}and new_rows.event_date = {{ alias }}.{{ day }}{%- endif %}
        )
    {%- endif -%}
{%- endmacro %}

{# pre-hook, in the model's own transaction: what is about to be summed anew goes. #}
{% macro forget_what_new_loads_reach(day='event_date') -%}
    {%- if not execute or not is_incremental() -%}{{ return('') }}{%- endif -%}
    delete from {{ this }} as held
    where {{ is_reached_by_new_loads('held', day) }}
{%- endmacro %}
