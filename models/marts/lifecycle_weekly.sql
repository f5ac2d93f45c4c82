{%- set spine = ref('int_as_of_weeks') %}
{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        pre_hook="{{ forget_stale_as_of_dates(ref('int_as_of_weeks')) }}",
        post_hook=["{{ record_as_of_dates(ref('int_as_of_weeks')) }}", '{{ record_build() }}']
    )
}}
{%- set dates = pending_as_of_dates(spine) %}

{% for as_of in dates -%}
    select
        {{ as_of }} as as_of_date,
        stage,
        cast(count(*) as bigint) as users
    from ({{ user_lifecycle_at(as_of) }})
    group by stage
    {% if not loop.last %}union all{% endif %}
{% else -%}
    select
        date '1900-01-01' as as_of_date,
        stage,
        cast(count(*) as bigint) as users
    from ({{ user_lifecycle_at("date '1900-01-01'") }})
    where false
    group by stage
{%- endfor %}
