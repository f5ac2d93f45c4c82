{#
    E, the end of the data. What an earlier load left in ml for a later date is of another shop, or of days that are not
    there any more, and is not the latest.
#}
{% macro scoring_date() -%}
    (select dates.as_of_date from {{ ref('as_of_dates') }} as dates where dates.is_scoring_date)
{%- endmacro %}
