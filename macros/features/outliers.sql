{#
    Suspicions by a date's own population: who does far more than others on a day, or spends far more. The CTEs medians,
    spreads and flags, from the CTE intensity (user_id, log_events, log_amount).
#}
{% macro outlier_flags() -%}
    medians as (
        select
            median(log_events) as log_events_median,
            median(log_amount) filter (where log_amount > 0) as log_amount_median
        from intensity
    ),

    -- Robust z-scores (Iglewicz and Hoaglin 1993): the median absolute deviation is not moved by the outliers it is to
    -- find. A floor keeps a population of equals from making everybody else an outlier.
    spreads as (
        select
            greatest(1.4826 * median(abs(intensity.log_events - medians.log_events_median)), 0.1) as log_events_spread,
            greatest(
                1.4826 * median(abs(intensity.log_amount - medians.log_amount_median))
                filter (where intensity.log_amount > 0), 0.1
            ) as log_amount_spread
        from intensity
        cross join medians
    ),

    flags as (
        select
            intensity.user_id,
            coalesce(
                (intensity.log_events - medians.log_events_median) / spreads.log_events_spread > {{ var('bot_z') }}, false
            ) as is_suspected_bot,
            coalesce(
                (intensity.log_amount - medians.log_amount_median) / spreads.log_amount_spread > {{ var('reseller_z') }},
                false
            ) as is_suspected_reseller
        from intensity
        cross join medians
        cross join spreads
    )
{%- endmacro %}

{# What the flags are made of: events per active day, and spending. #}
{% macro log_intensity(row) -%}
    ln(1 + {{ row }}.events_84d / nullif({{ row }}.active_days_84d, 0)) as log_events
{%- endmacro %}

{% macro log_spending(row) -%}
    ln(1 + greatest(coalesce({{ row }}.amount_84d, 0), 0)) as log_amount
{%- endmacro %}

{#
    post-hook of a model whose dates were computed for some users only: the others' flags follow the population's
    medians, which those users moved.
#}
{% macro flag_outliers_again(spine) -%}
    {%- set statements = [] -%}
    {%- for as_of in reached_as_of_dates(spine) -%}
        {%- set statement -%}
            update {{ this }} as held
            set is_suspected_bot = flags.is_suspected_bot, is_suspected_reseller = flags.is_suspected_reseller
            from (
                with intensity as (
                    select
                        features.user_id,
                        {{ log_intensity('features') }},
                        {{ log_spending('features') }}
                    from {{ this }} as features
                    where features.as_of_date = {{ as_of }}
                ),

                {{ outlier_flags() }}

                select * from flags
            ) as flags
            where
                held.as_of_date = {{ as_of }}
                and held.user_id = flags.user_id
                and (
                    held.is_suspected_bot != flags.is_suspected_bot
                    or held.is_suspected_reseller != flags.is_suspected_reseller
                )
        {%- endset -%}
        {%- do statements.append(statement) -%}
    {%- endfor -%}
    {{ return(statements | join(';\n')) }}
{%- endmacro %}
