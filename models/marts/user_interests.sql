-- What a user does with a category counts by its kind and fades with a half-life, so that a strength says what the
-- user likes now. Weights are whole numbers and the faded ones decimals: sums do not depend on the order of rows.
{%- set weights = var('interest_weights') %}

with signals as (
    select
        {{ user_at('events', 'dates.as_of_date') }} as user_id,
        dates.as_of_date,
        events.category,
        {{ days_between('events.event_date', 'dates.as_of_date') }} as days_ago,
        events.event_date,
        case events.event_type
            {%- for event_type, weight in weights.items() %}
                when '{{ event_type }}' then {{ weight }}
            {%- endfor %}
        end as weight
    from {{ ref('int_events') }} as events
    inner join {{ ref('as_of_dates') }} as dates
        on dates.is_scoring_date and events.event_date < dates.as_of_date
    where
        events.category is not null
        and events.event_type in ('{{ weights | join("', '") }}')
),

per_category as (
    select
        user_id,
        as_of_date,
        category,
        count(*) as signals,
        max(event_date) as last_date,
        sum(cast(weight * pow(0.5, days_ago / {{ var('interest_half_life_days') }}.0) as decimal(18, 9))) as strength,
        count(*) filter (where days_ago <= {{ var('active_window_days') }}) as recent,
        count(*) filter (where days_ago > {{ var('active_window_days') }}) as earlier
    from signals
    group by user_id, as_of_date, category
),

totals as (
    select
        *,
        sum(strength) over (partition by user_id) as strength_total,
        sum(recent) over (partition by user_id) as recent_total,
        sum(earlier) over (partition by user_id) as earlier_total,
        row_number() over (partition by user_id order by strength desc, signals desc, category) as interest_rank
    from per_category
),

shares as (
    select
        *,
        cast(strength as double) / nullif(cast(strength_total as double), 0) as share,
        recent / nullif(recent_total, 0) as recent_share,
        earlier / nullif(earlier_total, 0) as earlier_share,
        signals / (recent_total + earlier_total) as pooled_share
    from totals
),

-- The z-score of two shares: a user who buys little must change much before it counts as a change.
drifts as (
    select
        *,
        recent_share - earlier_share as drift,
        (recent_share - earlier_share)
        / nullif(sqrt(pooled_share * (1 - pooled_share) * (1.0 / recent_total + 1.0 / earlier_total)), 0) as drift_z
    from shares
)

select
    user_id,
    as_of_date,
    cast(interest_rank as integer) as interest_rank,
    category,
    cast(signals as integer) as signals,
    last_date,
    coalesce(share, 0) as strength,
    recent_share,
    earlier_share,
    drift,
    case
        when drift is null then null
        when drift_z >= {{ var('interest_drift_z') }} and earlier = 0 then 'new'
        when drift_z >= {{ var('interest_drift_z') }} then 'rising'
        when drift_z <= -{{ var('interest_drift_z') }} and recent = 0 then 'gone'
        when drift_z <= -{{ var('interest_drift_z') }} then 'fading'
        else 'steady'
    end as trend
from drifts
where interest_rank <= 10
