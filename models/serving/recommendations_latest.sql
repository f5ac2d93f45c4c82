select
    listed.user_id,
    listed.as_of_date,
    listed.rank,
    listed.product_id,
    products.title,
    products.category,
    products.price,
    listed.score,
    listed.source,
    listed.explanation,
    listed.because_product_id,
    listed.is_repeat,
    listed.is_cold_start,
    listed.run_id
from {{ source('ml', 'recommendations') }} as listed
left join {{ ref('products') }} as products on listed.product_id = products.product_id
where listed.as_of_date = (
    select max(newest.as_of_date)
    from {{ source('ml', 'recommendations') }} as newest
    where newest.as_of_date <= {{ scoring_date() }}
)
