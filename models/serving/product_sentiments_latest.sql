with latest as (
    select max(as_of_date) as as_of_date from {{ source('ml', 'product_sentiments') }}
    where as_of_date <= {{ scoring_date() }}
)

select
    sentiments.as_of_date,
    sentiments.product_id,
    products.title,
    products.category,
    sentiments.n_reviews,
    sentiments.mean_sentiment,
    sentiments.ci_low,
    sentiments.ci_high,
    sentiments.negative_share,
    sentiments.mean_rating,
    sentiments.run_id
from {{ source('ml', 'product_sentiments') }} as sentiments
inner join latest on sentiments.as_of_date = latest.as_of_date
left join {{ ref('products') }} as products on sentiments.product_id = products.product_id
