{{ config(materialized='view') }}

select
    article_id,
    intent,
    title,
    body
from {{ ref('stg_kb_articles') }}
