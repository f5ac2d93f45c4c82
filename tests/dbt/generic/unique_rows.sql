{# One row per combination of `columns`, none of them null. #}
{% test unique_rows(model, columns) %}
    select {{ columns | join(', ') }}
    from {{ model }}
    group by {{ columns | join(', ') }}
    having count(*) > 1
    {% for column in columns %} or {{ column }} is null{% endfor %}
{% endtest %}
