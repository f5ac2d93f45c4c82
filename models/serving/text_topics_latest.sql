with latest as (
    select max(as_of_date) as as_of_date from {{ source('ml', 'text_topics') }}
    where as_of_date <= {{ scoring_date() }}
)

select
    topics.as_of_date,
    topics.language,
    topics.topic_id,
    topics.words,
    topics.n_texts,
    topics.n_reviews,
    topics.n_tickets,
    topics.share,
    topics.mean_sentiment,
    topics.ci_low,
    topics.ci_high,
    topics.intent,
    topics.intent_share,
    topics.run_id
from {{ source('ml', 'text_topics') }} as topics
inner join latest on topics.as_of_date = latest.as_of_date
