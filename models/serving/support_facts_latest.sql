with dates as (
    select as_of_date from {{ ref('as_of_dates') }}
    where is_scoring_date
),

spent as (
    select
        {{ user_at('days', 'dates.as_of_date') }} as user_id,
        days.purchase_date,
        cast(sum(days.amount) as double) as amount
    from {{ ref('purchase_days') }} as days
    cross join dates
    where days.purchase_date < dates.as_of_date
    group by all
),

waiting as (
    select
        {{ user_at('tickets', 'dates.as_of_date') }} as user_id,
        cast(count(*) as integer) as open_tickets,
        min(tickets.created_date) as oldest_ticket_date
    from {{ ref('support_tickets') }} as tickets
    cross join dates
    where
        tickets.created_date < dates.as_of_date
        and coalesce(tickets.resolved_date >= dates.as_of_date, true)
    group by all
)

select
    users.user_id,
    users.as_of_date,
    '{{ var("base_currency") }}' as currency,
    users.stage,
    users.days_in_stage,
    users.last_purchase_date,
    spent.amount as last_purchase_amount,
    accounts.marketing_consent,
    coalesce(waiting.open_tickets, 0) as open_tickets,
    waiting.oldest_ticket_date
from {{ ref('lifecycle_current') }} as users
left join {{ ref('stg_users') }} as accounts on users.user_id = accounts.user_id
left join spent
    on
        users.user_id = spent.user_id
        and users.last_purchase_date = spent.purchase_date
left join waiting on users.user_id = waiting.user_id
