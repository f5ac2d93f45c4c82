with contacts as (
    select
        touches.user_id,
        dates.as_of_date,
        touches.campaign_id,
        campaigns.kind,
        campaigns.channel,
        touches.touched_at,
        touches.touched_date,
        -- A response that comes later is not known yet.
        case when touches.responded_date < dates.as_of_date then touches.responded_date end as responded_date,
        row_number() over (
            partition by touches.user_id order by touches.touched_at desc, touches.campaign_id
        ) as contact_rank
    from {{ ref('stg_campaign_touches') }} as touches
    inner join {{ ref('as_of_dates') }} as dates
        on dates.is_scoring_date and touches.touched_date < dates.as_of_date
    left join {{ ref('stg_campaigns') }} as campaigns
        on touches.campaign_id = campaigns.campaign_id
    where touches.arm != 'control'
)

select
    user_id,
    as_of_date,
    cast(contact_rank as integer) as contact_rank,
    campaign_id,
    kind,
    channel,
    touched_date as contacted_date,
    responded_date
from contacts
where contact_rank <= 5
