with recursive data_span as (
    select
        first_date,
        data_end_date
    from {{ ref('int_data_span') }}
    where first_date is not null
),

{{ as_of_grid(7, 7) }}

select
    grid.as_of_date,
    bit_xor(days.day_hash) as input_hash
from grid
inner join {{ ref('int_input_days') }} as days
    on grid.as_of_date > days.known_date
group by grid.as_of_date
