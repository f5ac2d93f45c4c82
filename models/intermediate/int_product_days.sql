{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        meta={
            'loads_from': 'int_events',
            'inputs': ['stg_currency_rates', 'forgotten_users']
        },
        full_refresh=true if judges_across_loads() else none,
        pre_hook=[
            '{{ follow_identities() }}',
            '{{ follow_products() }}',
            "{{ forget_what_new_loads_reach('purchase_date') }}"
        ],
        post_hook=['{{ record_loads() }}']
    )
}}

with purchase_lines as (
    select
        lines.user_id,
        lines.product_id,
        lines.event_date as purchase_date,
        lines.linked_user_id,
        lines.linked_date,
        lines.category,
        lines.brand,
        lines.amount
    from {{ ref('int_events') }} as lines
    where
        lines.event_type = 'purchase'
        and lines.product_id is not null
        and {{ is_reached_by_new_loads('lines') }}

    union all

    -- What `lcm-ml prune` kept of events that are gone.
    select
        bought.user_id,
        bought.product_id,
        bought.purchase_date,
        identities.user_id,
        identities.linked_date,
        products.category,
        products.brand,
        bought.amount
    from {{ kept_rows('kept_order_products') }} as bought
    left join {{ ref('stg_products') }} as products on bought.product_id = products.product_id
    left join {{ ref('stg_identities') }} as identities on bought.user_id = identities.anonymous_id
    where
        bought.product_id is not null
        and {{ is_reached_by_new_loads('bought', 'purchase_date') }}
)

select
    user_id,
    product_id,
    purchase_date,
    any_value(linked_user_id) as linked_user_id,
    any_value(linked_date) as linked_date,
    any_value(category) as category,
    any_value(brand) as brand,
    cast(sum(amount) as decimal(18, 4)) as amount
from purchase_lines
group by user_id, product_id, purchase_date
order by user_id, product_id, purchase_date
