with raw_products as (
    {{ raw_rows('products') }}
)

select
    {{ clean_id('product_id') }} as product_id,
    {{ clean_text('category') }} as category,
    {{ clean_text('department') }} as department,
    {{ clean_text('brand') }} as brand,
    price,
    {{ clean_text('title') }} as title
from raw_products
where {{ clean_id('product_id') }} is not null
{{ latest_per_key(clean_id('product_id')) }}
