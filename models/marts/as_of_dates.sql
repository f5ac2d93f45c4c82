with recursive data_span as (
    select
        first_date,
        data_end_date
    from {{ ref('int_data_span') }}
    where first_date is not null
),

{{ as_of_grid(var('as_of_step_days'), var('min_history_days')) }},

spine as (
    select
        as_of_date,
        data_end_date,
        true as is_on_grid
    from grid
    union all
    select
        data_end_date,
        data_end_date,
        false
    from data_span
    where data_end_date not in (select as_of_date from grid)
),

dated as (
    select
        as_of_date,
        is_on_grid,
        as_of_date = data_end_date as is_scoring_date,
        {{ add_days('as_of_date', var('churn_horizon_days')) }} as horizon_ends_on,
        {{ add_days('as_of_date', var('churn_horizon_days')) }} <= data_end_date and is_on_grid as is_labelled
    from spine
)

select
    dated.as_of_date,
    dated.is_on_grid,
    dated.is_scoring_date,
    dated.is_labelled,
    dated.horizon_ends_on,
    coalesce(bit_xor(days.day_hash) filter (where days.known_date < dated.as_of_date), 0) as input_hash,
    coalesce(bit_xor(days.day_hash), 0) as label_hash
from dated
left join {{ ref('int_input_days') }} as days
    on dated.horizon_ends_on > days.known_date
group by all
