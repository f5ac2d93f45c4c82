{{ config(materialized='view') }}

with reviews as (
    select
        event_id as text_id,
        'review' as kind,
        user_id,
        cast({{ shop_time('event_time') }} as date) as written_date,
        event_time as written_at,
        text,
        rating,
        product_id,
        cast(null as varchar) as intent
    from {{ ref('stg_events') }}
    where event_type = 'review' and text is not null
),

tickets as (
    select
        ticket_id as text_id,
        'ticket' as kind,
        user_id,
        created_date as written_date,
        created_at as written_at,
        text,
        null as rating,
        cast(null as varchar) as product_id,
        intent
    from {{ ref('stg_support_tickets') }}
    where text is not null
),

texts as (
    select * from reviews
    union all
    select * from tickets
)

select
    texts.kind || ':' || texts.text_id as text_id,
    texts.kind,
    texts.user_id,
    identities.user_id as linked_user_id,
    identities.linked_date,
    texts.written_date,
    texts.written_at,
    texts.text,
    cast(texts.rating as double) as rating,
    texts.product_id,
    texts.intent
from texts
left join {{ ref('stg_identities') }} as identities
    on texts.user_id = identities.anonymous_id
