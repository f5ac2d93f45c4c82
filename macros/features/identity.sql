{#
    The user that a row belongs to, as known on a date: an anonymous visitor counts as itself until the day after it
    was linked. `row` has user_id, linked_user_id and linked_date.
#}
{% macro user_at(row, as_of) -%}
    case when {{ row }}.linked_date < {{ as_of }} then {{ row }}.linked_user_id else {{ row }}.user_id end
{%- endmacro %}
