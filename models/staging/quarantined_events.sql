{{ config(materialized='view') }}

with failed_rules as (
    select
        load_id,
        source_file,
        source_row,
        rule,
        event_id,
        user_id,
        original,
        loaded_at
    from {{ ref('stg_events_checked') }}
    where rule is not null
),

unreadable_rows as (
    select
        load_id,
        source_file,
        source_row,
        rule,
        cast(null as varchar) as event_id,
        cast(null as varchar) as user_id,
        original,
        loaded_at
    from {{ source('load_log', 'rejected_rows') }}
    where
        table_name = 'events'
        and load_id in ({{ load_list(current_loads()) }})
)

select * from failed_rules
union all
select * from unreadable_rows
