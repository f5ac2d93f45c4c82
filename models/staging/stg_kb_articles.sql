with raw_articles as (
    {{ raw_rows('kb_articles') }}
)

select
    {{ clean_text('article_id') }} as article_id,
    lower({{ clean_text('intent') }}) as intent,
    title,
    body
from raw_articles
where {{ clean_text('article_id') }} is not null
{{ latest_per_key(clean_text('article_id')) }}
