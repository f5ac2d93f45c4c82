{{ config(materialized='view') }}

select
    product_id,
    department,
    category,
    brand,
    cast(price as double) as price,
    title
from {{ ref('stg_products') }}
