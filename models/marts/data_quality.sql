{%- set loads = current_loads() %}

-- What came in, from the log of the loads; where there is none (sample, your own tables), counted at the source.
-- Suppressed are rows of forgotten users: left out by the load, or removed since. Pruned are those older than the
-- setting event_retention_days, removed since.
with came_in as (
    {% if source_mode() == 'raw' -%}
        select
            load_id,
            cast(sum(rows_in) as bigint) as rows_in,
            cast(sum(rows_suppressed) as bigint) as rows_suppressed,
            cast(sum(rows_pruned) as bigint) as rows_pruned
        from {{ source('load_log', 'load_files') }}
        where table_name = 'events'
        group by load_id
    {%- else -%}
        select
            {% if loads %}'{{ loads[0] }}'{% else %}'none'{% endif %} as load_id,
            cast(count(*) as bigint) as rows_in,
            cast(0 as bigint) as rows_suppressed,
            cast(0 as bigint) as rows_pruned
        from {% if loads %}{{ raw_relation('events') }}{% else %}{{ ref('stg_events') }}{% endif %}
    {%- endif %}
),

kept as (
    select
        load_id,
        count(*) as row_count
    from {{ ref('stg_events') }}
    group by load_id
),

rejected as (
    select
        load_id,
        rule,
        count(*) as row_count
    from {{ ref('quarantined_events') }}
    group by load_id, rule
),

noted as (
    select
        'all' as load_id,
        'unknown_product' as rule,
        count(*) filter (where product_id is not null and not is_known_product) as row_count
    from {{ ref('int_events') }}
    -- Without a product table nothing can be unknown.
    where exists (select 1 from {{ ref('stg_products') }})

    union all

    select
        'all',
        'user_id_in_more_than_one_case',
        count(*) - count(distinct lower(user_id))
    from (select distinct user_id from {{ ref('int_events') }})
)

select
    load_id,
    'rows_in' as kind,
    'all' as rule,
    rows_in as row_count
from came_in

union all

select
    load_id,
    'kept',
    'all',
    row_count
from kept

union all

select
    load_id,
    case when rule like 'duplicate%' then 'duplicate' else 'quarantined' end,
    rule,
    row_count
from rejected

union all

select
    load_id,
    'suppressed',
    'forgotten_user',
    rows_suppressed
from came_in
where rows_suppressed > 0

union all

select
    load_id,
    'pruned',
    'before_retention',
    rows_pruned
from came_in
where rows_pruned > 0

union all

select
    load_id,
    'noted',
    rule,
    row_count
from noted
where row_count > 0
