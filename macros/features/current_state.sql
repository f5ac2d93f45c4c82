{#
    The current state: rows of the users that something new is known of since the last full scoring, as of the day after
    the newest event. By the data's clock, never the wall's; and by the same macros as the grid, so that the same rule
    holds: nothing on or after as_of_date.
#}

{#
    The users whose current state has to be computed, as they are known at `as_of`: those that a new load touches; where
    the model is made anew, those with events that the scoring date's rows do not know, on that day or later.
#}
{% macro touched_users(as_of) -%}
    {%- set raw_tables = [source('raw', 'users'), source('raw', 'campaign_touches'), source('raw', 'support_tickets')] -%}
    select distinct {{ user_at('e', as_of) }} as user_id
    from {{ ref('int_events') }} as e
    where
        {% if var('data_end_date') -%}
            -- The end of the data is fixed by hand: then that is now.
            false
        {%- elif is_incremental() -%}
            e.load_id in ({{ load_list(pending_loads()) }})
        {%- else -%}
            e.event_date >= {{ scoring_date() }}
        {%- endif %}
    {%- if execute and is_incremental() and source_mode() == 'raw' and not var('data_end_date') %}
        {%- for relation in raw_tables if existing_relation(relation) is not none %}
            union
            select coalesce(identities.user_id, new_rows.user_id)
            from (
                select {{ clean_id('user_id') }} as user_id
                from {{ relation }}
                where load_id in ({{ load_list(pending_loads()) }})
            ) as new_rows
            left join {{ ref('stg_identities') }} as identities
                on new_rows.user_id = identities.anonymous_id and identities.linked_date < {{ as_of }}
            where new_rows.user_id is not null
        {%- endfor %}
    {%- endif %}
{%- endmacro %}

{#
    Intensities of the users that are not computed now, as they were known last: the population that suspicions are
    told by. For user_features_at.
#}
{% macro intensities_of_others(touched) -%}
    select
        held.user_id,
        {{ log_intensity('held') }},
        {{ log_spending('held') }}
    from {{ ref('user_features') }} as held
    where
        held.as_of_date = {{ scoring_date() }}
        and held.user_id not in (select touched.user_id from {{ touched }} as touched)
        {% if is_incremental() -%}
            and held.user_id not in (select newer.user_id from {{ this }} as newer)
        union all
        select
            newer.user_id,
            {{ log_intensity('newer') }},
            {{ log_spending('newer') }}
        from {{ this }} as newer
        {%- endif %}
{%- endmacro %}
