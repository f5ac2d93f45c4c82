with raw_touches as (
    {{ raw_rows('campaign_touches') }}
)

select
    {{ clean_id('campaign_id') }} as campaign_id,
    {{ clean_id('user_id') }} as user_id,
    touched_at,
    coalesce(lower({{ clean_text('arm') }}), 'treatment') as arm,
    -- A response before its touch is no response to it.
    case when responded_at >= touched_at then responded_at end as responded_at,
    cast({{ shop_time('touched_at') }} as date) as touched_date,
    cast({{ shop_time('case when responded_at >= touched_at then responded_at end') }} as date) as responded_date
from raw_touches
where
    {{ clean_id('campaign_id') }} is not null
    and {{ clean_id('user_id') }} is not null
    and touched_at is not null
{{ latest_per_key(clean_id('campaign_id') ~ ', ' ~ clean_id('user_id') ~ ', touched_at') }}
