with lines as (
    select
        {{ user_at('events', 'dates.as_of_date') }} as user_id,
        dates.as_of_date,
        events.product_id,
        events.category,
        events.brand,
        events.channel,
        events.event_hour,
        events.event_date,
        events.quantity,
        events.amount,
        events.discount
    from {{ ref('int_events') }} as events
    inner join {{ ref('as_of_dates') }} as dates
        on dates.is_scoring_date and events.event_date < dates.as_of_date
    where events.event_type = 'purchase'
),

unit_prices as (
    select
        product_id,
        any_value(category) as category,
        median(cast(amount as double) / cast(quantity as double)) as unit_price
    from lines
    where quantity > 0 and amount > 0 and product_id is not null and category is not null
    group by product_id
),

-- 0 is the cheapest product of its category, 1 the dearest; a category of one product says nothing.
price_levels as (
    select
        product_id,
        percent_rank() over (partition by category order by unit_price) as price_level
    from unit_prices
    qualify count(*) over (partition by category) > 1
),

spending as (
    select
        lines.user_id,
        lines.as_of_date,
        count(*) as lines,
        count(*) filter (where lines.discount > 0) as discounted_lines,
        -- Whole millionths, so that the sum does not depend on the order of rows.
        sum(cast(price_levels.price_level as decimal(18, 6))) as price_level_sum,
        count(price_levels.price_level) as priced_lines
    from lines
    left join price_levels on lines.product_id = price_levels.product_id
    group by lines.user_id, lines.as_of_date
),

tastes as (
    select
        user_id,
        as_of_date,
        cast(price_level_sum as double) / nullif(priced_lines, 0) as price_level,
        cast(discounted_lines as double) / lines as discounted_line_share
    from spending
),

ranks as (
    select
        *,
        percent_rank() over (partition by price_level is null order by price_level) as price_rank,
        percent_rank() over (order by discounted_line_share) as discount_rank
    from tastes
),

brand_spend as (
    select
        user_id,
        brand,
        row_number() over (partition by user_id order by sum(amount) desc, brand) as place
    from lines
    where brand is not null
    group by user_id, brand
),

brands as (
    select
        user_id,
        {{ first_three('brand', 'place') }} as top_brands
    from brand_spend
    where place <= 3
    group by user_id
),

categories as (
    select
        user_id,
        {{ first_three('category', 'interest_rank') }} as top_categories
    from {{ ref('user_interests') }}
    where interest_rank <= 3
    group by user_id
),

habits as (
    select
        user_id,
        case
            when event_hour < 5 then 'night'
            when event_hour < 12 then 'morning'
            when event_hour < 18 then 'afternoon'
            else 'evening'
        end as daypart,
        cast(isodow(event_date) as integer) as weekday,
        channel,
        count(*) as lines
    from lines
    group by all
),

dayparts as (
    select
        user_id,
        daypart,
        sum(lines) as lines
    from habits
    group by user_id, daypart
),

weekdays as (
    select
        user_id,
        weekday,
        sum(lines) as lines
    from habits
    group by user_id, weekday
),

channels as (
    select
        user_id,
        channel,
        sum(lines) as lines
    from habits
    where channel is not null
    group by user_id, channel
),

favourite_dayparts as (
    select
        user_id,
        {{ heaviest('daypart', 'lines') }} as favourite_daypart
    from dayparts
    group by user_id
),

favourite_weekdays as (
    select
        user_id,
        {{ heaviest('weekday', 'lines') }} as favourite_weekday
    from weekdays
    group by user_id
),

favourite_channels as (
    select
        user_id,
        {{ heaviest('channel', 'lines') }} as favourite_channel
    from channels
    group by user_id
)

select
    users.user_id,
    users.as_of_date,
    categories.top_categories,
    brands.top_brands,
    ranks.price_level,
    case
        when ranks.price_level is null then null
        when ranks.price_rank < 1.0 / 3 then 'low'
        when ranks.price_rank < 2.0 / 3 then 'middle'
        else 'high'
    end as price_band,
    ranks.discounted_line_share,
    case
        when ranks.discounted_line_share = 0 then 'none'
        when ranks.discount_rank < 1.0 / 3 then 'low'
        when ranks.discount_rank < 2.0 / 3 then 'middle'
        when ranks.discount_rank is not null then 'high'
    end as discount_affinity,
    favourite_dayparts.favourite_daypart,
    favourite_weekdays.favourite_weekday,
    favourite_channels.favourite_channel
from {{ ref('user_lifecycle') }} as users
left join categories on users.user_id = categories.user_id
left join brands on users.user_id = brands.user_id
left join ranks on users.user_id = ranks.user_id
left join favourite_dayparts on users.user_id = favourite_dayparts.user_id
left join favourite_weekdays on users.user_id = favourite_weekdays.user_id
left join favourite_channels on users.user_id = favourite_channels.user_id
where users.as_of_date = {{ scoring_date() }}
