with raw_identities as (
    {{ raw_rows('identities') }}
),

links as (
    select
        {{ clean_id('anonymous_id') }} as anonymous_id,
        {{ clean_id('user_id') }} as user_id,
        linked_at,
        source_file,
        source_row
    from raw_identities
    where
        {{ clean_id('anonymous_id') }} is not null
        and {{ clean_id('user_id') }} is not null
        and linked_at is not null
)

-- A visitor belongs to the user it was first linked to: a later link must not rewrite what was known before.
select
    anonymous_id,
    user_id,
    linked_at,
    cast({{ shop_time('linked_at') }} as date) as linked_date
from links
where anonymous_id != user_id
qualify row_number() over (partition by anonymous_id order by linked_at, user_id, source_file, source_row) = 1
