with raw_tickets as (
    {{ raw_rows('support_tickets') }}
)

select
    {{ clean_text('ticket_id') }} as ticket_id,
    {{ clean_id('user_id') }} as user_id,
    created_at,
    text,
    lower({{ clean_text('intent') }}) as intent,
    resolved_at,
    cast({{ shop_time('created_at') }} as date) as created_date
from raw_tickets
where
    {{ clean_text('ticket_id') }} is not null
    and {{ clean_id('user_id') }} is not null
    and created_at is not null
{{ latest_per_key(clean_text('ticket_id')) }}
