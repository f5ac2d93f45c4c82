{%- set spine = ref('as_of_dates') %}
{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        pre_hook="{{ forget_stale_as_of_dates(ref('as_of_dates')) }}",
        post_hook=["{{ record_as_of_dates(ref('as_of_dates')) }}", '{{ record_build() }}']
    )
}}
{%- set dates = pending_as_of_dates(spine) %}

with
{%- for as_of in dates %}
    stages_{{ loop.index }} as (
        {{ user_lifecycle_at(as_of) }}
    ),
{% endfor %}

new_stages as (
    {% for as_of in dates -%}
        select
            {{ as_of }} as as_of_date,
            *
        from stages_{{ loop.index }}
        {% if not loop.last %}union all{% endif %}
    {% else -%}
        select
            cast(null as date) as as_of_date,
            *
        from ({{ user_lifecycle_at("date '1900-01-01'") }})
        where false
    {%- endfor %}
),

-- Where each user stood on the last date before these: the dates to compute are always the newest ones.
{% if is_incremental() and dates -%}
    before as (
        select
            user_id,
            as_of_date,
            stage,
            stage_since_date
        from {{ this }}
        where as_of_date = (
            select max(spine.as_of_date)
            from {{ spine }} as spine
            where spine.is_on_grid and spine.as_of_date < {{ dates[0] }}
        )
    ),
{%- else -%}
    before as (
        select
            user_id,
            as_of_date,
            stage,
            as_of_date as stage_since_date
        from new_stages
        where false
    ),
{%- endif %}

timeline as (
    select
        user_id,
        as_of_date,
        stage,
        stage_since_date
    from before
    union all
    select
        user_id,
        as_of_date,
        stage,
        cast(null as date)
    from new_stages
),

with_previous as (
    select
        user_id,
        as_of_date,
        stage,
        stage_since_date,
        lag(stage) over (partition by user_id order by as_of_date) as previous_stage
    from timeline
),

with_changes as (
    select
        user_id,
        as_of_date,
        previous_stage,
        case
            when stage_since_date is not null then stage_since_date
            when previous_stage is null or previous_stage != stage then as_of_date
        end as changed_date
    from with_previous
),

with_since as (
    select
        user_id,
        as_of_date,
        previous_stage,
        max(changed_date) over (
            partition by user_id order by as_of_date rows between unbounded preceding and current row
        ) as stage_since_date
    from with_changes
)

select
    new_stages.user_id,
    new_stages.as_of_date,
    new_stages.stage,
    with_since.previous_stage,
    with_since.stage_since_date,
    cast({{ days_between('with_since.stage_since_date', 'new_stages.as_of_date') }} as integer) as days_in_stage,
    new_stages.first_seen_date,
    new_stages.first_purchase_date,
    new_stages.last_purchase_date,
    new_stages.purchase_days,
    new_stages.days_since_last_purchase,
    new_stages.typical_gap_days,
    new_stages.at_risk_after_days,
    new_stages.dormant_after_days,
    new_stages.churned_after_days
from new_stages
inner join with_since
    on
        new_stages.user_id = with_since.user_id
        and new_stages.as_of_date = with_since.as_of_date
