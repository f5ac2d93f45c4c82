-- Nothing is dropped silently: per load, rows in = kept + duplicates + quarantined + suppressed + pruned.
with totals as (
    select
        load_id,
        sum(row_count) filter (where kind = 'rows_in') as rows_in,
        coalesce(sum(row_count) filter (
            where kind in ('kept', 'duplicate', 'quarantined', 'suppressed', 'pruned')
        ), 0) as rows_accounted_for
    from {{ ref('data_quality') }}
    where kind != 'noted'
    group by load_id
)

select *
from totals
where rows_in is distinct from rows_accounted_for
