{# Schemas have their plain names (marts, not main_marts): targets differ by their warehouse file, not by schema. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ custom_schema_name or target.schema }}
{%- endmacro %}
