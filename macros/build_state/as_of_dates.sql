{#
    Incremental by as_of_date: each row carries the hash of the inputs it was computed from. A date is computed again
    when that hash differs from the spine's, and only then.
#}

{# The dates this model has to compute now, oldest first. `spine` has as_of_date and `hash_column`. #}
{% macro pending_as_of_dates(spine, hash_column='input_hash', condition='true') -%}
    {%- if not execute -%}{{ return([]) }}{%- endif -%}
    {%- set query -%}
        select spine.as_of_date, spine.{{ hash_column }}
        from {{ spine }} as spine
        where {{ condition }}
        {% if is_incremental() -%}
            and (spine.as_of_date, spine.{{ hash_column }}) not in (select (as_of_date, input_hash) from {{ this }})
        {%- endif %}
        order by spine.as_of_date
    {%- endset -%}
    {%- set dates = [] -%}
    {%- for row in run_query(query).rows -%}
        {%- do dates.append({'date': "date '" ~ row[0] ~ "'", 'hash': row[1] | int}) -%}
    {%- endfor -%}
    {{ return(dates) }}
{%- endmacro %}

{# pre-hook, in the model's own transaction: forget the dates that are gone or whose inputs changed. #}
{% macro forget_stale_as_of_dates(spine, hash_column='input_hash', condition='true') -%}
    {%- if not execute or not is_incremental() -%}{{ return('') }}{%- endif -%}
    delete from {{ this }}
    where (as_of_date, input_hash) not in (
        select (spine.as_of_date, spine.{{ hash_column }}) from {{ spine }} as spine where {{ condition }}
    )
{%- endmacro %}
