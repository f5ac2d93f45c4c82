{#
    A view, or a table of raw tables and of tables that stay too, is left as it is where it would be made of the same:
    the same code (as code_hash tells it), the same SQL, the same rows. What is made of events is made by every build.
#}

{% materialization view, adapter='duckdb' %}
    {{ return(leave_as_it_is() or dbt.materialization_view_default()) }}
{% endmaterialization %}

{% materialization table, adapter='duckdb' %}
    {{ return(leave_as_it_is() or dbt.materialization_table_duckdb()) }}
{% endmaterialization %}

{# What a materialization returns, where nothing has to be done; else none. #}
{% macro leave_as_it_is() -%}
    {%- set there = load_cached_relation(this) -%}
    {%- if not made_of() or flags.FULL_REFRESH or there is none or there.type != model.config.materialized -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set before = last_build_of(model.name) -%}
    {%- if before is none or before.code_hash != code_hash() or before.input_hash != made_of() -%}{{ return(none) }}{%- endif -%}
    {%- do store_raw_result('main', message='UNCHANGED', code='UNCHANGED', rows_affected='0') -%}
    {{ return({'relations': [there]}) }}
{%- endmacro %}

{# Hash of what this view or table is made of, besides its code; empty where that is not known before it is made. #}
{% macro made_of() -%}
    {%- if 'lcm_made_of' not in model -%}{%- do model.update({'lcm_made_of': find_made_of()}) -%}{%- endif -%}
    {{ return(model.lcm_made_of) }}
{%- endmacro %}

{% macro find_made_of() -%}
    {#- Descriptions are kept in the database as comments. -#}
    {%- set parts = [sql, model.description, tojson(model.columns)] -%}
    {%- if model.config.materialized == 'view' -%}{{ return(local_md5(parts | join('\n'))) }}{%- endif -%}
    {%- for unique_id in model.depends_on.nodes if unique_id.startswith('model.') -%}
        {%- set parent = graph.nodes[unique_id] -%}
        {%- if parent.config.materialized != 'table' -%}{{ return('') }}{%- endif -%}
        {%- set build = last_build_of(parent.name) -%}
        {%- if build is none or not build.input_hash -%}{{ return('') }}{%- endif -%}
        {%- do parts.append(build.build_id) -%}
    {%- endfor -%}
    {%- for unique_id in model.depends_on.nodes if unique_id.startswith('source.') -%}
        {%- set source_node = graph.sources[unique_id] -%}
        {%- if source_node.source_name != 'raw' -%}{{ return('') }}{%- endif -%}
        {%- set relation = raw_relation(source_node.name) -%}
        {%- if relation is not none -%}{%- do parts.append(content_load_id(relation, source_mode())) -%}{%- endif -%}
    {%- endfor -%}
    {{ return(local_md5(parts | join('\n'))) }}
{%- endmacro %}
