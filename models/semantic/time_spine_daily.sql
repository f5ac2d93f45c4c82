-- Every day from the first event to the scoring date: what metrics over time are laid out on.
with recursive days as (
    select
        first_date as date_day,
        data_end_date
    from {{ ref('int_data_span') }}
    where first_date is not null
    union all
    select
        cast({{ add_days('date_day', 1) }} as date),
        data_end_date
    from days
    where date_day < data_end_date
)

select date_day
from days
