{#
    Incremental by as_of_date: meta.processed_dates has, for each model, the dates it holds and the hash of the inputs
    that each was computed from. A date is computed again when that hash differs from the spine's, and only then.
    `spine` is a relation with as_of_date and `hash_column`; `condition` says which of its dates the model wants.

    A model with meta: {by_date: true, loads_from: int_events} computes a date for the users that new loads reach, where
    these loads are all that changed: the hashes are sums (xor) over rows, so the difference is then that of their rows.
#}

{# The dates that this model has to compute now, oldest first, as SQL dates. #}
{% macro pending_as_of_dates(spine, hash_column='input_hash', condition='true') -%}
    {%- if not execute -%}{{ return([]) }}{%- endif -%}
    {%- set query -%}
        select spine.as_of_date
        from {{ spine }} as spine
        where {{ condition }}
        {% if is_incremental() -%}
            and not exists ({{ is_processed(hash_column) }})
            {%- if reached_as_of_dates(spine) %}
                and spine.as_of_date not in ({{ reached_as_of_dates(spine) | join(', ') }})
            {%- endif %}
        {%- endif %}
        order by spine.as_of_date
    {%- endset -%}
    {%- set dates = sql_dates(query) -%}
    {%- if dates and flags.WHICH in ['build', 'run', 'retry'] -%}{%- do tell_dates('', dates) -%}{%- endif -%}
    {{ return(dates) }}
{%- endmacro %}

{# The dates of a query's only column, as SQL dates. #}
{% macro sql_dates(query) -%}
    {%- set dates = [] -%}
    {%- for day in run_query(query).columns[0].values() -%}{%- do dates.append("date '" ~ day ~ "'") -%}{%- endfor -%}
    {{ return(dates) }}
{%- endmacro %}

{% macro tell_dates(whom, dates) -%}
    {%- do log(
        'lcm: ' ~ model.name ~ ' computes ' ~ whom ~ dates | length ~ ' dates, '
        ~ dates[0][6:-1] ~ ' to ' ~ dates[-1][6:-1], info=true
    ) -%}
{%- endmacro %}

{% macro is_processed(hash_column) -%}
    select 1
    from meta.processed_dates as processed
    where
        processed.model_name = '{{ model.name }}'
        and processed.as_of_date = spine.as_of_date
        and processed.input_hash = spine.{{ hash_column }}
{%- endmacro %}

{#
    pre-hook, in the model's own transaction: forget the dates that are gone or whose inputs changed; all of them where
    the model is built anew.
#}
{% macro forget_stale_as_of_dates(spine, hash_column='input_hash', condition='true') -%}
    {%- if not execute -%}{{ return('') }}{%- endif -%}
    {%- if not is_incremental() -%}
        {{ return("delete from meta.processed_dates where model_name = '" ~ model.name ~ "'") }}
    {%- endif -%}
    delete from {{ this }}
    where as_of_date not in (
        select spine.as_of_date
        from {{ spine }} as spine
        where {{ condition }} and exists ({{ is_processed(hash_column) }})
    )
    {%- if reached_as_of_dates(spine) %}
        and as_of_date not in ({{ reached_as_of_dates(spine) | join(', ') }})
    {%- endif %}
{%- endmacro %}

{# What a model begins with: the query that `rows_at` writes for the first date to compute, or no rows of that kind. #}
{% macro first_date(spine, rows_at) -%}
    {%- for as_of in pending_as_of_dates(spine)[:1] -%}
        {{ rows_at(as_of, *varargs) }}
    {%- else -%}
        select *
        from ({{ rows_at("date '1900-01-01'", *varargs) }})
        where false
    {%- endfor %}
{%- endmacro %}

{#
    post-hook, in the model's own transaction: the dates to compute after the first, oldest first, with the query that
    `rows_at` writes for a date. One statement each: in one for all, DuckDB would hold the hash tables of all dates.
#}
{% macro insert_other_dates(spine, rows_at) -%}
    {%- if not execute -%}{{ return('') }}{%- endif -%}
    {%- set query -%}
        select spine.as_of_date
        from {{ spine }} as spine
        where
            not exists ({{ is_processed('input_hash') }})
            and spine.as_of_date not in (select held.as_of_date from {{ this }} as held)
        order by spine.as_of_date
    {%- endset -%}
    {%- set statements = [] -%}
    {%- for as_of in sql_dates(query) -%}
        {%- do statements.append('insert into ' ~ this ~ ' by name ' ~ rows_at(as_of, *varargs)) -%}
    {%- endfor -%}
    {{ return(statements | join(';\n')) }}
{%- endmacro %}

{# The dates for which this model has to compute only the users that new loads reach. #}
{% macro reached_as_of_dates(spine) -%}
    {%- if not execute or not model.config.meta.get('by_date') or not is_incremental() -%}{{ return([]) }}{%- endif -%}
    {#- Whom a flag keeps out has no row from which the flags could be told again. -#}
    {%- if var('exclude_flagged_users') -%}{{ return([]) }}{%- endif -%}
    {%- if 'lcm_reached_dates' not in model -%}
        {%- do model.update({'lcm_reached_dates': find_reached_as_of_dates(spine)}) -%}
    {%- endif -%}
    {{ return(model.lcm_reached_dates) }}
{%- endmacro %}

{% macro find_reached_as_of_dates(spine) -%}
    {%- set loads = pending_loads() -%}
    {%- if not loads or stale_loads() -%}{{ return([]) }}{%- endif -%}
    {%- set query -%}
        with new_days as (
            select
                event_date,
                bit_xor({{ event_row_hash() }}) as day_hash
            from {{ ref('int_events') }}
            where load_id in ({{ load_list(loads) }})
            group by event_date
        )

        select spine.as_of_date
        from {{ spine }} as spine
        inner join meta.processed_dates as processed on spine.as_of_date = processed.as_of_date
        left join new_days on spine.as_of_date > new_days.event_date
        where
            processed.model_name = '{{ model.name }}'
            and processed.input_hash != spine.input_hash
        group by spine.as_of_date, spine.input_hash, processed.input_hash
        having xor(spine.input_hash, processed.input_hash) = coalesce(bit_xor(new_days.day_hash), 0)
        order by spine.as_of_date
    {%- endset -%}
    {{ return(sql_dates(query)) }}
{%- endmacro %}

{# The users, as known on a date, that rows of the new loads before it belong to. #}
{% macro users_reached_by_new_loads(as_of) -%}
    select distinct {{ user_at('new_rows', as_of) }} as user_id
    from {{ ref('int_events') }} as new_rows
    where new_rows.load_id in ({{ load_list(pending_loads()) }}) and new_rows.event_date < {{ as_of }}
{%- endmacro %}

{# pre-hook, in the model's own transaction. #}
{% macro forget_reached_users(spine) -%}
    {%- set dates = reached_as_of_dates(spine) -%}
    {%- if not dates -%}{{ return('') }}{%- endif -%}
    {%- do tell_dates('the users of new rows on ', dates) -%}
    {%- for as_of in dates %}
        delete from {{ this }}
        where as_of_date = {{ as_of }} and user_id in ({{ users_reached_by_new_loads(as_of) }});
    {%- endfor %}
{%- endmacro %}

{# post-hook, in the model's own transaction. #}
{% macro record_as_of_dates(spine, hash_column='input_hash', condition='true') -%}
    {%- if not execute -%}{{ return('') }}{%- endif -%}
    delete from meta.processed_dates where model_name = '{{ model.name }}';
    insert into meta.processed_dates
    select '{{ model.name }}', spine.as_of_date, spine.{{ hash_column }}
    from {{ spine }} as spine
    where {{ condition }};
{%- endmacro %}
