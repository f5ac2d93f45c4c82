with latest as (
    select max(as_of_date) as as_of_date
    from {{ source('ml', 'user_lifetime_values') }}
    where as_of_date <= {{ scoring_date() }}
),

served as (
    select
        amounts.user_id,
        amounts.as_of_date,
        max(amounts.probability_alive) as probability_alive,
        {% for days in [30, 90, 365] -%}
            max(amounts.expected_purchases) filter (where amounts.horizon_days = {{ days }})
                as expected_purchases_{{ days }}d,
            max(amounts.expected_amount) filter (where amounts.horizon_days = {{ days }})
                as expected_amount_{{ days }}d,
        {% endfor -%}
        max(amounts.amount_low) filter (where amounts.horizon_days = 90) as amount_low_90d,
        max(amounts.amount_high) filter (where amounts.horizon_days = 90) as amount_high_90d
    from {{ source('ml', 'user_values') }} as amounts
    inner join latest on amounts.as_of_date = latest.as_of_date
    where amounts.is_served
    group by amounts.user_id, amounts.as_of_date
)

select
    lifetime.user_id,
    lifetime.as_of_date,
    served.expected_purchases_30d,
    served.expected_purchases_90d,
    served.expected_purchases_365d,
    served.expected_amount_30d,
    served.expected_amount_90d,
    served.expected_amount_365d,
    served.amount_low_90d,
    served.amount_high_90d,
    served.probability_alive,
    lifetime.lifetime_value,
    lifetime.value_decile,
    lifetime.purchase_value,
    lifetime.horizon_months,
    lifetime.discount_rate,
    lifetime.run_id
from {{ source('ml', 'user_lifetime_values') }} as lifetime
inner join served
    on
        lifetime.user_id = served.user_id
        and lifetime.as_of_date = served.as_of_date
