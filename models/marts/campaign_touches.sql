with campaigns as (
    select
        campaign_id,
        kind,
        channel,
        cost_per_contact,
        cast({{ shop_time('ends_at') }} as date) as ends_date
    from {{ ref('stg_campaigns') }}
)

select
    touches.campaign_id,
    campaigns.kind,
    campaigns.channel,
    campaigns.ends_date,
    touches.user_id,
    touches.touched_at,
    touches.touched_date,
    touches.arm,
    touches.responded_date,
    cast(
        case when touches.arm = 'control' then 0 else campaigns.cost_per_contact end as decimal(18, 4)
    ) as cost
from {{ ref('stg_campaign_touches') }} as touches
left join campaigns on touches.campaign_id = campaigns.campaign_id
