with latest as (
    select max(as_of_date) as as_of_date
    from {{ source('ml', 'next_best_actions') }}
    where as_of_date <= {{ scoring_date() }}
),

dated as (
    select
        actions.*,
        extract(isodow from actions.send_date) as send_weekday_number
    from {{ source('ml', 'next_best_actions') }} as actions
    inner join latest on actions.as_of_date = latest.as_of_date
)

select
    dated.user_id,
    dated.as_of_date,
    dated.action,
    dated.rule_id,
    rules.description as rule_description,
    dated.offer,
    dated.campaign_kind,
    dated.channel,
    dated.product_id,
    products.title as product_title,
    dated.send_date,
    case dated.send_weekday_number
        when 1 then 'Monday'
        when 2 then 'Tuesday'
        when 3 then 'Wednesday'
        when 4 then 'Thursday'
        when 5 then 'Friday'
        when 6 then 'Saturday'
        when 7 then 'Sunday'
    end as send_weekday,
    dated.send_daypart,
    dated.contact_cost,
    dated.discount_cost,
    dated.expected_profit,
    dated.standard_error,
    dated.gain_source,
    dated.stage,
    dated.churn_probability,
    dated.uplift_segment,
    dated.value_decile,
    dated.why,
    dated.blocked_by,
    dated.blocked_rule,
    dated.run_id
from dated
left join {{ ref('action_rules') }} as rules on dated.rule_id = rules.rule_id
left join {{ ref('products') }} as products on dated.product_id = products.product_id
