select
    lifecycle.user_id,
    lifecycle.as_of_date,
    lifecycle.stage,
    lifecycle.previous_stage,
    lifecycle.stage_since_date,
    lifecycle.days_in_stage,
    lifecycle.first_seen_date,
    lifecycle.first_purchase_date,
    lifecycle.last_purchase_date,
    lifecycle.purchase_days,
    lifecycle.days_since_last_purchase,
    lifecycle.typical_gap_days
from {{ ref('user_lifecycle') }} as lifecycle
where lifecycle.as_of_date = {{ scoring_date() }}
