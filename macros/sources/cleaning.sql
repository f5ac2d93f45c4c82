{#
    Two settings make the verdict on a row depend on rows of other loads or tables. Then the events are checked whole
    with every build, so that a load in two parts gives what a load in one gives.
#}
{% macro judges_across_loads() -%}
    {{ return(var('drop_identical_events') or var('unknown_products') == 'quarantine') }}
{%- endmacro %}
