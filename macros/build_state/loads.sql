{#
    Incremental by load: which loads a model holds, which it lacks, and which it holds but its source does not any more.
    The source is raw, or, with meta: {loads_from: <model>}, the model before it: a model says of itself alone what it
    holds, so that a killed build or `dbt run --select` never makes one believe that it has what it never saw.
#}

{#
    SQL of the load_ids that this model's source holds. Loads are compared in SQL, as sets: a watch adds one every few
    seconds, and a list of them would be walked once for each.
#}
{% macro loads_at_hand() -%}
    {%- set before = model.config.meta.get('loads_from') -%}
    {%- if before -%}
        {{ return("select load_id from meta.processed_loads where model_name = '" ~ before ~ "'") }}
    {%- elif source_mode() == 'raw' -%}
        {{ return('select load_id from ' ~ source('load_log', 'loads')) }}
    {%- endif -%}
    {%- set loads = current_loads() -%}
    {{ return("select unnest(['" ~ loads | join("', '") ~ "']) as load_id" if loads else "select '' as load_id where false") }}
{%- endmacro %}

{% macro loads_held() -%}
    {{ return("select load_id from meta.processed_loads where model_name = '" ~ model.name ~ "'") }}
{%- endmacro %}

{% macro load_ids(query) -%}
    {%- if not execute -%}{{ return([]) }}{%- endif -%}
    {{ return(run_query('select load_id from (' ~ query ~ ') order by load_id').columns[0].values() | list) }}
{%- endmacro %}

{% macro pending_loads() -%}
    {#- Asked for every condition, and for every date: once is enough. -#}
    {%- if 'lcm_pending_loads' not in model -%}
        {%- set query = loads_at_hand() ~ (' except ' ~ loads_held() if is_incremental() else '') -%}
        {%- do model.update({'lcm_pending_loads': load_ids(query)}) -%}
    {%- endif -%}
    {{ return(model.lcm_pending_loads) }}
{%- endmacro %}

{% macro stale_loads() -%}
    {#- Most models hold no loads, and know of none. -#}
    {%- if not execute or not load_ids(loads_held() ~ ' limit 1') -%}{{ return([]) }}{%- endif -%}
    {{ return(load_ids(loads_held() ~ ' except ' ~ loads_at_hand())) }}
{%- endmacro %}

{# post-hook, in the model's own transaction. #}
{% macro record_loads() -%}
    {%- if not execute -%}{{ return('') }}{%- endif -%}
    {%- set at_hand = loads_at_hand() -%}
    delete from meta.processed_loads
    where model_name = '{{ model.name }}' and load_id not in (select load_id from ({{ at_hand }}));
    insert into meta.processed_loads
    select '{{ model.name }}', load_id
    from (({{ at_hand }}) except ({{ loads_held() }}));
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
