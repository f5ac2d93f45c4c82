{#
    What `lcm-ml prune` kept of the events that it removed. Models read these rows beside what they make of the events
    that are left: no day has both, since rows before the cut that come later are quarantined.
#}

{# The rows of a kept table, as a table of a from clause; none where the events are not those of schema raw. #}
{% macro kept_rows(table_name) -%}
    {%- set relation = source('kept', table_name) -%}
    {{ return(relation if source_mode() == 'raw' else '(select * from ' ~ relation ~ ' where false)') }}
{%- endmacro %}

{# The shop day before which events were pruned, as SQL; none where nothing was. #}
{% macro pruned_before() -%}
    {%- set relation = kept_rows('prunings') -%}
    {%- if not execute -%}{{ return(none) }}{%- endif -%}
    {%- set found = run_query('select max(prune_before) from ' ~ relation ~ ' as prunings').rows[0][0] -%}
    {{ return("date '" ~ found ~ "'" if found is not none else none) }}
{%- endmacro %}

{# on-run-start: days in two time zones, or money in two currencies, would be added up without a word. #}
{% macro check_kept_settings() -%}
    {%- set found = run_query('select settings from raw.prunings order by pruned_at desc limit 1') -%}
    {%- set settings = fromjson(found.rows[0][0]) if found.rows and not is_external() else {} -%}
    {%- for name in settings if settings[name] != var(name) -%}
        {{ exceptions.raise_compiler_error(
            'what was kept of pruned events was made with ' ~ name ~ ': ' ~ settings[name] ~ ', and the setting is '
            ~ var(name) ~ ' now. Set it back, or load all events anew (lcm-ml load files without --append).'
        ) }}
    {%- endfor -%}
{%- endmacro %}
