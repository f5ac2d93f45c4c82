with raw_campaigns as (
    {{ raw_rows('campaigns') }}
)

select
    {{ clean_id('campaign_id') }} as campaign_id,
    lower({{ clean_text('channel') }}) as channel,
    {{ clean_text('kind') }} as kind,
    starts_at,
    ends_at,
    cost_per_contact
from raw_campaigns
where {{ clean_id('campaign_id') }} is not null
{{ latest_per_key(clean_id('campaign_id')) }}
