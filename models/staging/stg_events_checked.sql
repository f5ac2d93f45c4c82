{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        meta={'inputs': ['stg_currency_rates', 'forgotten_users']},
        full_refresh=true if judges_across_loads() else none,
        post_hook=['{{ record_loads() }}']
    )
}}
{%- set loads = pending_loads() %}
{%- set knows_products = var('unknown_products') == 'quarantine' %}
{%- set content = 'user_id, event_time, event_type, session_id, order_id, product_id, quantity, unit_price, amount, '
    ~ 'currency, discount, rating, text, channel, device' %}
{%- set cut = pruned_before() %}
{%- set is_pruned_day = 'cast(' ~ shop_time('event_time') ~ ' as date) < ' ~ cut if cut else 'false' %}

with raw_events as not materialized (
    {{ raw_rows('events') }}
),

new_rows as not materialized (
    select *
    from raw_events
    where load_id in ({{ load_list(loads) }})
),

readable as not materialized (
    select
        load_id,
        loaded_at,
        source_file,
        source_row,
        unreadable,
        original,
        event_time,
        session_id,
        quantity,
        unit_price,
        discount,
        rating,
        text,
        {{ clean_text('event_id') }} as event_id,
        {{ clean_id('user_id') }} as user_id,
        {{ clean_id('order_id') }} as order_id,
        {{ clean_id('product_id') }} as product_id,
        lower({{ clean_text('event_type') }}) as event_type_as_given,
        upper(coalesce({{ clean_text('currency') }}, '{{ var("base_currency") }}')) as currency,
        lower({{ clean_text('channel') }}) as channel,
        lower({{ clean_text('device') }}) as device,
        -- What is too much for the type is null here; the rule impossible_amount finds it by its factors.
        coalesce(amount, case
            when abs(cast(quantity as double) * cast(unit_price as double)) < 1e11
                then cast(cast(quantity as decimal(24, 3)) * unit_price as decimal(18, 4))
        end) as amount,
        coalesce(cast(amount as double), cast(quantity as double) * cast(unit_price as double)) as approximate_amount
    from new_rows
),

valued as not materialized (
    select
        readable.*,
        aliases.event_type,
        {{ 'products.product_id is null' if knows_products else 'false' }} as is_unknown_product,
        case
            when readable.currency = '{{ var("base_currency") }}' then cast(1 as decimal(18, 8))
            else rates.rate
        end as rate
    from readable
    left join {{ ref('event_type_aliases') }} as aliases
        on readable.event_type_as_given = aliases.alias
    {% if knows_products -%}
        left join {{ ref('stg_products') }} as products
            on readable.product_id = products.product_id
    {%- endif %}
    left join {{ ref('stg_currency_rates') }} as rates
        on
            readable.currency = rates.currency
            and cast(readable.event_time as date) >= rates.valid_from
            and cast(readable.event_time as date) < rates.valid_to
),

{#- Computed anew wherever it is read, of the columns that are needed there: kept, all rows would be written out, wide. #}

judged as not materialized (
    select
        *,
        case
            when unreadable is not null then unreadable
            when event_id is null then 'missing_event_id'
            when user_id is null then 'missing_user_id'
            when event_time is null then 'missing_event_time'
            when event_type_as_given is null then 'missing_event_type'
            when event_type is null then 'unknown_event_type'
            when event_time < timestamp '{{ var("event_time_floor") }}' then 'event_time_before_floor'
            -- What was pruned lives on in the kept tables: it must not count twice.
            when {{ is_pruned_day }} then 'before_retention'
            when event_time > loaded_at + interval {{ var('future_tolerance_hours') }} hour then 'event_time_in_future'
            when unit_price < 0 then 'negative_price'
            when abs(quantity) > {{ var('max_quantity') }} then 'impossible_quantity'
            when rate is null then 'unknown_currency'
            when
                greatest(abs(approximate_amount), abs(cast(discount as double))) * rate > {{ var('max_amount') }}
                then 'impossible_amount'
            when rating not between 1 and 5 then 'impossible_rating'
            when event_type = 'purchase' and quantity = 0 and coalesce(amount, 0) = 0 then 'empty_line'
            when is_unknown_product and product_id is not null then 'unknown_product'
        end as broken_rule
    from valued
),

{#- The copies of an id are few: only they are ranked. A hash finds them in little memory, and a few others with them. #}

copied_ids as (
    select hash(event_id) as id_hash
    from judged
    where broken_rule is null
    group by id_hash
    having count(*) > 1
),

copies as (
    select
        judged.load_id,
        judged.source_file,
        judged.source_row,
        row_number() over (
            partition by judged.event_id
            order by judged.loaded_at, judged.load_id, judged.source_file, judged.source_row
        ) as copy_number
    from judged
    inner join copied_ids on hash(judged.event_id) = copied_ids.id_hash
    where judged.broken_rule is null
),

{%- if var('drop_identical_events') %}
    copied_contents as (
        select hash({{ content }}) as content_hash
        from judged
        where broken_rule is null
        group by content_hash
        having count(*) > 1
    ),

    identical as (
        select
            load_id,
            source_file,
            source_row,
            row_number() over (
                partition by {{ content }}
                order by loaded_at, load_id, source_file, source_row
            ) as copy_number
        from judged
        inner join copied_contents on hash({{ content }}) = copied_contents.content_hash
        where broken_rule is null
    ),
{%- endif %}

{%- if is_incremental() %}
    -- Found by the few new ids: a join with all rows that are held would hash them all.
    earlier as (
        select held.event_id
        from {{ this }} as held
        where
            held.rule is null
            and held.event_id in (
                select judged.event_id
                from judged
                where judged.broken_rule is null
            )
    ),
{%- endif %}

deduplicated as (
    select
        judged.*,
        case
            when judged.broken_rule is not null then judged.broken_rule
            when copies.copy_number > 1 then 'duplicate_event_id'
            when {{ 'identical.copy_number > 1' if var('drop_identical_events') else 'false' }} then 'duplicate_content'
            when {{ 'earlier.event_id is not null' if is_incremental() else 'false' }} then 'duplicate_event_id'
        end as rule
    from judged
    left join copies
        on
            judged.load_id = copies.load_id
            and judged.source_file = copies.source_file
            and judged.source_row = copies.source_row
    {% if var('drop_identical_events') -%}
        left join identical
            on
                judged.load_id = identical.load_id
                and judged.source_file = identical.source_file
                and judged.source_row = identical.source_row
    {%- endif %}
    {% if is_incremental() -%}
        left join earlier on judged.event_id = earlier.event_id
    {%- endif %}
)

select
    event_id,
    user_id,
    event_time,
    coalesce(event_type, event_type_as_given) as event_type,
    session_id,
    order_id,
    product_id,
    quantity,
    unit_price,
    amount,
    currency,
    discount,
    rate,
    rating,
    text,
    channel,
    device,
    rule,
    load_id,
    loaded_at,
    source_file,
    source_row,
    case when rule is not null then cast(to_json(original) as varchar) end as original
from deduplicated
