{# The values at the places 1 to 3 of a group, in a text. An aggregate with an order by holds a buffer for every group. #}
{% macro first_three(column, place) -%}
    concat_ws(
        ', ',
        max({{ column }}) filter (where {{ place }} = 1),
        max({{ column }}) filter (where {{ place }} = 2),
        max({{ column }}) filter (where {{ place }} = 3)
    )
{%- endmacro %}
