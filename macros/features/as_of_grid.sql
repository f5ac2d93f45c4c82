{#
    The fixed grid of dates: the anchor plus or minus multiples of `step_days`, as far as the data reaches with
    `history_days` before each, and with an event in the active window. Adding a day of data never moves it.
    Needs the CTE data_span (first_date, data_end_date).
#}
{% macro as_of_grid(step_days, history_days) -%}
    {%- set anchor = "date '" ~ var('as_of_anchor_date') ~ "'" -%}
    first_grid_date as (
        select
            {{ add_days(
                anchor,
                'cast(ceil((' ~ days_between(anchor, 'first_date') ~ ' + ' ~ history_days ~ ') / ' ~ step_days ~ '.0) as integer) * ' ~ step_days
            ) }} as as_of_date,
            data_end_date
        from data_span
    ),

    all_grid_dates as (
        select
            as_of_date,
            data_end_date
        from first_grid_date
        where as_of_date <= data_end_date
        union all
        select
            {{ add_days('as_of_date', step_days) }},
            data_end_date
        from all_grid_dates
        where {{ add_days('as_of_date', step_days) }} <= data_end_date
    ),

    grid as (
        select
            all_grid_dates.as_of_date,
            all_grid_dates.data_end_date
        from all_grid_dates
        where exists (
            select 1
            from {{ ref('int_input_days') }} as days
            where
                days.events > 0
                and days.known_date < all_grid_dates.as_of_date
                and days.known_date >= {{ add_days('all_grid_dates.as_of_date', -var('active_window_days')) }}
        )
    )
{%- endmacro %}
