{#
    Incremental by as_of_date: meta.processed_dates has, for each model, the dates it holds and the hash of the inputs
    that each was computed from. A date is computed again when that hash differs from the spine's, and only then.
    `spine` is a relation with as_of_date and `hash_column`; `condition` says which of its dates the model wants.
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
        {%- endif %}
        order by spine.as_of_date
    {%- endset -%}
    {%- set days = run_query(query).columns[0].values() | map('string') | list -%}
    {%- if days and flags.WHICH in ['build', 'run', 'retry'] -%}
        {%- do log(
            'lcm: ' ~ model.name ~ ' computes ' ~ days | length ~ ' dates, ' ~ days[0] ~ ' to ' ~ days[-1], info=true
        ) -%}
    {%- endif -%}
    {%- set dates = [] -%}
    {%- for day in days -%}{%- do dates.append("date '" ~ day ~ "'") -%}{%- endfor -%}
    {{ return(dates) }}
{%- endmacro %}

{% macro is_processed(hash_column) -%}
    select 1
    from meta.processed_dates as processed
    where
        processed.model_name = '{{ model.name }}'
        and processed.as_of_date = spine.as_of_date
        and processed.input_hash = spine.{{ hash_column }}
{%- endmacro %}

{# pre-hook, in the model's own transaction: forget the dates that are gone or whose inputs changed. #}
{% macro forget_stale_as_of_dates(spine, hash_column='input_hash', condition='true') -%}
    {%- if not execute or not is_incremental() -%}{{ return('') }}{%- endif -%}
    delete from {{ this }}
    where as_of_date not in (
        select spine.as_of_date
        from {{ spine }} as spine
        where {{ condition }} and exists ({{ is_processed(hash_column) }})
    )
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
