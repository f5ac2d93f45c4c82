{# Text without the white space around it; empty text is no text. #}
{% macro clean_text(column) -%}
    nullif(trim({{ column }}), '')
{%- endmacro %}

{# An id without the white space around it, its case by the var id_case. #}
{% macro clean_id(column) -%}
    {%- set id_case = var('id_case') -%}
    {%- if id_case not in ['keep', 'lower', 'upper'] -%}
        {{ exceptions.raise_compiler_error("the var id_case takes keep, lower or upper, not '" ~ id_case ~ "'") }}
    {%- endif -%}
    {{ clean_text(column) if id_case == 'keep' else id_case ~ '(' ~ clean_text(column) ~ ')' }}
{%- endmacro %}

{# The newest row of each key, as loaded; a table's rows are otherwise one per key. #}
{% macro latest_per_key(key) -%}
    qualify row_number() over (partition by {{ key }} order by loaded_at desc, source_file desc, source_row desc) = 1
{%- endmacro %}
