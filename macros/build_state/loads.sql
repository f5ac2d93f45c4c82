{# Incremental by load: which loads a model holds, which it lacks, and which it holds but raw does not any more. #}

{% macro processed_loads(model_name) -%}
    {%- if not execute -%}{{ return([]) }}{%- endif -%}
    {%- set found = run_query(
        "select load_id from meta.processed_loads where model_name = '" ~ model_name ~ "' order by load_id"
    ) -%}
    {{ return(found.columns[0].values() | list) }}
{%- endmacro %}

{% macro pending_loads() -%}
    {%- set loads = current_loads() -%}
    {{ return(loads | reject('in', processed_loads(model.name)) | list if is_incremental() else loads) }}
{%- endmacro %}

{% macro stale_loads() -%}
    {%- set processed = processed_loads(model.name) -%}
    {{ return(processed | reject('in', current_loads()) | list if processed else []) }}
{%- endmacro %}

{# post-hook, in the model's own transaction. #}
{% macro record_loads() -%}
    {%- if not execute -%}{{ return('') }}{%- endif -%}
    delete from meta.processed_loads where model_name = '{{ model.name }}';
    {%- for load_id in current_loads() %}
    insert into meta.processed_loads values ('{{ model.name }}', '{{ load_id }}');
    {%- endfor %}
{%- endmacro %}

{# The loads as a list for `in (...)`; an impossible one where there is none, so that the SQL stays valid. #}
{% macro load_list(loads) -%}
    {%- if loads -%}'{{ loads | join("', '") }}'{%- else -%}''{%- endif -%}
{%- endmacro %}
