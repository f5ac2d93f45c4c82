-- E, the scoring date: the last day whose volume is plausible beside the 28 days with events before it. A stray
-- event after the real end, or a last day that has hardly begun, does not move it. The var data_end_date wins.
with volumes as (
    select
        known_date as event_date,
        events,
        median(events) over (
            order by known_date rows between 28 preceding and 1 preceding
        ) as usual_events
    from {{ ref('int_input_days') }}
    where events > 0
)

select
    min(event_date) as first_date,
    max(event_date) as last_event_date,
    coalesce(
        {% if var('data_end_date') %}date '{{ var("data_end_date") }}'{% else %}cast(null as date){% endif %},
        max(event_date) filter (where events >= {{ var('min_day_volume_share') }} * coalesce(usual_events, 0))
    ) as data_end_date
from volumes
