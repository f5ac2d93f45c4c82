{#
    Where staging reads: `external` when raw_schema or raw_database name tables of your own, `raw` once anything
    was loaded, else `sample` (the seeds). Every command says which.
#}
{% macro source_mode() -%}
    {%- if is_external() -%}
        {{ return('external') }}
    {%- endif -%}
    {%- if not execute -%}
        {{ return('sample') }}
    {%- endif -%}
    {%- if existing_relation(source('load_log', 'loads')) is none -%}
        {{ return('sample') }}
    {%- endif -%}
    {{ return(mode_of_own_tables()) }}
{%- endmacro %}

{% macro is_external() -%}
    {{ return(var('raw_schema') != 'raw' or var('raw_database') is not none) }}
{%- endmacro %}

{% macro mode_of_own_tables() -%}
    {{ return('raw' if run_query('select 1 from raw.loads limit 1').rows | length > 0 else 'sample') }}
{%- endmacro %}

{# The relation that holds `table_name` in this mode, or none where the shop has no such table. #}
{% macro raw_relation(table_name) -%}
    {#- Both edges are drawn at parse time, so that dbt knows them whichever is read. -#}
    {%- set sample_relation = ref('sample_' ~ table_name) -%}
    {%- set raw_relation = source('raw', table_name) -%}
    {%- if not execute -%}
        {{ return(sample_relation) }}
    {%- endif -%}
    {%- set wanted = sample_relation if source_mode() == 'sample' else raw_relation -%}
    {{ return(existing_relation(wanted)) }}
{%- endmacro %}

{# The contract of a raw table: its columns as models/staging/_raw__sources.yml lists them. #}
{% macro raw_contract(table_name) -%}
    {%- for node in graph.sources.values() if node.source_name == 'raw' and node.name == table_name -%}
        {{ return(node.columns.values() | list) }}
    {%- endfor -%}
    {{ exceptions.raise_compiler_error('no raw table ' ~ table_name ~ ' in models/staging/_raw__sources.yml') }}
{%- endmacro %}

{#
    A select of all rows of a raw table in the contract's columns and types, whichever mode it comes from, plus
    `unreadable`: the rule name for the first value that is there but cannot be cast, null where all can, and
    `original`: the row as it came.
    Columns the source lacks are null; a table it lacks is empty.
#}
{% macro raw_rows(table_name) -%}
    {%- set relation = raw_relation(table_name) -%}
    {%- if not execute -%}
        {{ return('select 1 as placeholder') }}
    {%- endif -%}
    {%- set mode = source_mode() -%}
    {%- set contract = raw_contract(table_name) -%}
    {%- set mapping = var('raw_columns').get(table_name, {}) if mode == 'external' else {} -%}
    {%- set found = {} -%}
    {%- if relation is not none -%}
        {%- for column in adapter.get_columns_in_relation(relation) -%}
            {%- do found.update({column.name | lower: column.dtype | lower}) -%}
        {%- endfor -%}
    {%- endif -%}
    {%- set selected = [] -%}
    {%- set unreadable = [] -%}
    {%- for column in contract -%}
        {%- set is_lineage = column.meta.get('lineage', false) -%}
        {%- if column.name in mapping -%}
            {%- set value = mapping[column.name] -%}
        {%- elif column.name in found -%}
            {%- set value = column.name -%}
        {%- elif column.name == 'load_id' and relation is not none -%}
            {%- set value = "'" ~ content_load_id(relation, mode) ~ "'" -%}
        {%- elif column.name == 'loaded_at' -%}
            {%- set value = "cast(current_timestamp as timestamp)" -%}
        {%- elif column.name == 'source_file' -%}
            {%- set value = "'" ~ (relation or table_name) | replace('"', '') | replace("'", '') ~ "'" -%}
        {%- elif column.name == 'source_row' -%}
            {%- set value = 'row_number() over ()' -%}
        {%- elif column.meta.get('required', false) and relation is not none -%}
            {{ exceptions.raise_compiler_error(
                'the ' ~ mode ~ ' table ' ~ relation ~ ' has no column ' ~ column.name ~ ', which ' ~ table_name
                ~ " needs. Name it with the var raw_columns, e.g. {" ~ table_name ~ ": {" ~ column.name ~ ": your_column}}. It has: "
                ~ found.keys() | join(', ')
            ) }}
        {%- else -%}
            {%- set value = 'null' -%}
        {%- endif -%}
        {%- if mode == 'raw' or is_lineage or value == 'null' -%}
            {%- do selected.append('cast(' ~ value ~ ' as ' ~ column.data_type ~ ') as ' ~ column.name) -%}
        {%- else -%}
            {%- set value = 'nullif(' ~ value ~ ", '')" if found.get(value, '') == 'varchar' else value -%}
            {%- do selected.append('try_cast(' ~ value ~ ' as ' ~ column.data_type ~ ') as ' ~ column.name) -%}
            {%- if column.data_type != 'varchar' -%}
                {%- do unreadable.append(
                    'when ' ~ value ~ ' is not null and try_cast(' ~ value ~ ' as ' ~ column.data_type
                    ~ ") is null then 'unreadable_" ~ column.name ~ "'"
                ) -%}
            {%- endif -%}
        {%- endif -%}
    {%- endfor -%}
    {%- set unreadable_rule = 'case ' ~ unreadable | join(' ') ~ ' end' if unreadable else 'cast(null as varchar)' -%}
    {%- set original = 'raw_table' if relation is not none else 'cast(null as varchar)' -%}
    {%- set from_clause = 'from ' ~ relation ~ ' as raw_table' if relation is not none else 'where false' -%}
    {{ return(
        'select ' ~ selected | join(', ') ~ ', ' ~ unreadable_rule ~ ' as unreadable, ' ~ original ~ ' as original '
        ~ from_clause
    ) }}
{%- endmacro %}

{#
    Tables that lcm-ml did not load have no load_id. Theirs is a hash of their content, so that a build notices when
    they change, and does nothing when they do not.
#}
{% macro content_load_id(relation, mode) -%}
    {%- set result = run_query(
        "select concat_ws('-', count(*), coalesce(sum(cast(hash(t) as hugeint)), 0)) as fingerprint from " ~ relation ~ ' as t'
    ) -%}
    {{ return(mode ~ '-' ~ result.rows[0][0]) }}
{%- endmacro %}

{# The load_ids that the events now consist of. #}
{% macro current_loads() -%}
    {%- set relation = raw_relation('events') -%}
    {%- if not execute or relation is none -%}
        {{ return([]) }}
    {%- endif -%}
    {%- set mode = source_mode() -%}
    {%- if mode == 'raw' -%}
        {%- set loads = run_query('select load_id from ' ~ source('load_log', 'loads') ~ ' order by load_id') -%}
        {{ return(loads.columns[0].values() | list) }}
    {%- endif -%}
    {{ return([content_load_id(relation, mode)]) }}
{%- endmacro %}
