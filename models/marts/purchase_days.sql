select
    user_id,
    order_date as purchase_date,
    linked_user_id,
    linked_date,
    cast(count(*) as integer) as orders,
    cast(sum(amount) as decimal(18, 4)) as amount
from {{ ref('int_orders') }}
group by all
