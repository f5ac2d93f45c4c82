with raw_rates as (
    {{ raw_rows('currency_rates') }}
),

one_per_day as (
    select
        upper({{ clean_text('currency') }}) as currency,
        valid_from,
        rate
    from raw_rates
    where
        {{ clean_text('currency') }} is not null
        and valid_from is not null
        and rate > 0
    {{ latest_per_key('upper(' ~ clean_text('currency') ~ '), valid_from') }}
)

select
    currency,
    valid_from,
    coalesce(lead(valid_from) over (partition by currency order by valid_from), date '9999-12-31') as valid_to,
    rate
from one_per_day
