{#
    One row per user seen before `as_of` (an event, or an account opened), with exactly one lifecycle stage and the
    figures it follows from. All quantiles are of this date's own past.

    users       a relation with user_id: only these users. The population's gap is then that of the scoring date, as
                every user with too few gaps of its own has it there.
#}
{% macro user_lifecycle_at(as_of, users=none) -%}
    with seen as (
        select
            {{ user_at('s', as_of) }} as user_id,
            min(s.session_date) as first_seen_date
        from {{ ref('int_sessions') }} as s
        {% if users -%}
            inner join {{ users }} as wanted on {{ user_at('s', as_of) }} = wanted.user_id
        {%- endif %}
        where s.session_date < {{ as_of }}
        group by 1
    ),

    opened as (
        select
            user_id,
            cast({{ shop_time('signed_up_at') }} as date) as opened_date
        from {{ ref('stg_users') }}
        where
            cast({{ shop_time('signed_up_at') }} as date) < {{ as_of }}
            {% if users -%}
                and user_id in (select wanted.user_id from {{ users }} as wanted)
            {%- endif %}
    ),

    users as (
        select
            coalesce(seen.user_id, opened.user_id) as user_id,
            least(seen.first_seen_date, opened.opened_date) as first_seen_date
        from seen
        full join opened on seen.user_id = opened.user_id
    ),

    days_of_purchase as (
        {% if users -%}
            select distinct
                {{ user_at('o', as_of) }} as user_id,
                o.order_date as purchase_date
            from {{ ref('int_orders') }} as o
            where
                o.order_date < {{ as_of }}
                and {{ user_at('o', as_of) }} in (select wanted.user_id from {{ users }} as wanted)
        {%- else -%}
            select distinct
                {{ user_at('p', as_of) }} as user_id,
                p.purchase_date
            from {{ ref('purchase_days') }} as p
            where p.purchase_date < {{ as_of }}
        {%- endif %}
    ),

    with_gaps as (
        select
            user_id,
            purchase_date,
            {{ days_between('lag(purchase_date) over (partition by user_id order by purchase_date)', 'purchase_date') }}
                as gap_days
        from days_of_purchase
    ),

    rhythm as (
        select
            user_id,
            min(purchase_date) as first_purchase_date,
            max(purchase_date) as last_purchase_date,
            count(*) as purchase_days,
            count(*) filter (
                where purchase_date >= {{ add_days(as_of, -var('active_window_days')) }}
            ) as purchase_days_active,
            count(gap_days) as gaps,
            {{ median_by_group('gap_days') }} as own_gap_days,
            max(gap_days) filter (
                where purchase_date >= {{ add_days(as_of, -var('reactivated_window_days')) }}
            ) as longest_recent_gap_days
        from with_gaps
        group by user_id
    ),

    population as (
        {% if users -%}
            select coalesce(max(before.typical_gap_days), {{ var('default_gap_days') }}) as gap_days
            from {{ ref('user_lifecycle') }} as before
            where
                before.as_of_date = {{ scoring_date() }}
                and before.purchase_days <= {{ var('min_gaps_for_rhythm') }}
        {%- else -%}
            select coalesce(
                quantile_cont(gap_days, {{ var('population_gap_quantile') }}), {{ var('default_gap_days') }}
            ) as gap_days
            from with_gaps
        {%- endif %}
    ),

    typical as (
        select
            users.user_id,
            users.first_seen_date,
            rhythm.first_purchase_date,
            rhythm.last_purchase_date,
            coalesce(rhythm.purchase_days, 0) as purchase_days,
            coalesce(rhythm.purchase_days_active, 0) as purchase_days_active,
            rhythm.longest_recent_gap_days,
            {{ days_between('rhythm.last_purchase_date', as_of) }} as days_since_last_purchase,
            {{ days_between('rhythm.first_purchase_date', as_of) }} as days_since_first_purchase,
            least(
                case
                    when rhythm.gaps >= {{ var('min_gaps_for_rhythm') }} then rhythm.own_gap_days
                    else population.gap_days
                end,
                {{ var('max_typical_gap_days') }}
            ) as typical_gap_days
        from users
        cross join population
        left join rhythm on users.user_id = rhythm.user_id
    ),

    cut_offs as (
        select
            *,
            greatest({{ var('at_risk_min_days') }}, {{ var('at_risk_gaps') }} * typical_gap_days) as at_risk_after_days,
            greatest({{ var('dormant_min_days') }}, {{ var('dormant_gaps') }} * typical_gap_days) as dormant_after_days,
            greatest({{ var('churned_min_days') }}, {{ var('churned_gaps') }} * typical_gap_days) as churned_after_days
        from typical
    )

    select
        user_id,
        {{ lifecycle_stage() }} as stage,
        first_seen_date,
        first_purchase_date,
        last_purchase_date,
        cast(purchase_days as integer) as purchase_days,
        cast(days_since_last_purchase as integer) as days_since_last_purchase,
        cast(typical_gap_days as double) as typical_gap_days,
        cast(at_risk_after_days as double) as at_risk_after_days,
        cast(dormant_after_days as double) as dormant_after_days,
        cast(churned_after_days as double) as churned_after_days
    from cut_offs
{%- endmacro %}

{#
    The rows of user_lifecycle_at with their date, and how long each stage has lasted.

    before      SQL of user_id, stage and stage_since_date: where each user stood before.
    users       as in user_lifecycle_at.
#}
{% macro user_lifecycle_since(as_of, before, users=none) -%}
    with stages as (
        {{ user_lifecycle_at(as_of, users) }}
    ),

    before as (
        {{ before }}
    ),

    since as (
        select
            stages.*,
            before.stage as previous_stage,
            case when before.stage = stages.stage then before.stage_since_date else {{ as_of }} end as stage_since_date
        from stages
        left join before on stages.user_id = before.user_id
    )

    select
        user_id,
        {{ as_of }} as as_of_date,
        stage,
        previous_stage,
        stage_since_date,
        cast({{ days_between('stage_since_date', as_of) }} as integer) as days_in_stage,
        first_seen_date,
        first_purchase_date,
        last_purchase_date,
        purchase_days,
        days_since_last_purchase,
        typical_gap_days,
        at_risk_after_days,
        dormant_after_days,
        churned_after_days
    from since
{%- endmacro %}

{# user_lifecycle at a date; `held` is what it holds of earlier ones, none at first. #}
{% macro dated_user_lifecycle_at(as_of, held=none) -%}
    {%- set before -%}
        {% if held -%}
            select
                user_id,
                stage,
                stage_since_date
            from {{ held }}
            where as_of_date = (
                select max(spine.as_of_date)
                from {{ ref('as_of_dates') }} as spine
                where spine.is_on_grid and spine.as_of_date < {{ as_of }}
            )
        {%- else -%}
            select
                user_id,
                stage,
                first_seen_date as stage_since_date
            from stages
            where false
        {%- endif %}
    {%- endset -%}
    {{ user_lifecycle_since(as_of, before) }}
{%- endmacro %}

{# How many users were in each stage at a date. #}
{% macro lifecycle_counts_at(as_of) -%}
    select
        {{ as_of }} as as_of_date,
        stage,
        cast(count(*) as bigint) as users
    from ({{ user_lifecycle_at(as_of) }})
    group by stage
{%- endmacro %}

{#
    The stage rules, in order: the first that holds is the stage, so stages are exclusive, and the last always holds,
    so they are complete.
#}
{% macro lifecycle_stage() -%}
    case
        when last_purchase_date is null then 'prospect'
        when days_since_last_purchase > churned_after_days then 'churned'
        when days_since_last_purchase > dormant_after_days then 'dormant'
        when days_since_last_purchase > at_risk_after_days then 'at_risk'
        when days_since_first_purchase <= {{ var('new_window_days') }} then 'new'
        when longest_recent_gap_days > dormant_after_days then 'reactivated'
        when purchase_days_active >= {{ var('loyal_min_purchase_days') }} then 'loyal'
        else 'active'
    end
{%- endmacro %}

{% macro lifecycle_stages() -%}
    {{ return(['prospect', 'new', 'active', 'loyal', 'at_risk', 'dormant', 'churned', 'reactivated']) }}
{%- endmacro %}
