{{ config(materialized='view') }}

select
    tickets.ticket_id,
    tickets.user_id,
    identities.user_id as linked_user_id,
    identities.linked_date,
    tickets.created_at,
    tickets.created_date,
    tickets.text,
    tickets.intent,
    cast({{ shop_time('tickets.resolved_at') }} as date) as resolved_date
from {{ ref('stg_support_tickets') }} as tickets
left join {{ ref('stg_identities') }} as identities
    on tickets.user_id = identities.anonymous_id
