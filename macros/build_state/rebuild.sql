{#
    When an incremental model is rebuilt whole: when its code, a macro it uses, an ancestor's code, a var that changes
    meaning, or the source mode differs from the last build; when the rows of what it names in meta.inputs differ; and
    when a load that it holds is gone. dbt's own --full-refresh does the same.
#}
{% macro should_full_refresh() -%}
    {%- set configured = config.get('full_refresh') -%}
    {%- if configured is not none -%}{{ return(configured) }}{%- endif -%}
    {%- if flags.FULL_REFRESH -%}{{ return(true) }}{%- endif -%}
    {%- if not execute or model.config.materialized != 'incremental' -%}{{ return(false) }}{%- endif -%}
    {{ return(rebuild_reason() is not none) }}
{%- endmacro %}

{# Why this model must be rebuilt, in words; none where adding to it is enough. #}
{% macro rebuild_reason() -%}
    {#- Asked several times while a model is built, and each time it walks all ancestors: once is enough. -#}
    {%- if 'lcm_rebuild_reason' not in model -%}
        {%- do model.update({'lcm_rebuild_reason': find_rebuild_reason()}) -%}
    {%- endif -%}
    {{ return(model.lcm_rebuild_reason) }}
{%- endmacro %}

{% macro find_rebuild_reason() -%}
    {%- set before = last_build_of(model.name) -%}
    {%- if before is none -%}{{ return('it was never built') }}{%- endif -%}
    {%- if before.code_hash != code_hash() -%}{{ return('its code, settings or source changed') }}{%- endif -%}
    {%- if before.input_hash != input_hash() -%}{{ return('the rows it is made of changed') }}{%- endif -%}
    {%- if not model.config.meta.get('by_date') and stale_loads() -%}{{ return('a load it holds is gone') }}{%- endif -%}
    {{ return(none) }}
{%- endmacro %}

{# What record_build wrote of a model: its code_hash, input_hash and build_id; none where it was never built. #}
{% macro last_build_of(model_name) -%}
    {%- set found = run_query(
        "select code_hash, input_hash, build_id from meta.model_builds where model_name = '" ~ model_name ~ "'"
    ).rows -%}
    {{ return(found[0] if found | length else none) }}
{%- endmacro %}

{# post-hook of all models, in their own transaction: what it was now built from. #}
{% macro record_build() -%}
    {%- if not execute -%}{{ return('') }}{%- endif -%}
    {%- set is_incremental_model = model.config.materialized == 'incremental' -%}
    {%- set reason = rebuild_reason() if is_incremental_model else none -%}
    {%- set rebuilt = flags.FULL_REFRESH or not is_incremental_model or reason is not none -%}
    {%- if reason is not none and reason != 'it was never built' -%}
        {%- do log('lcm: rebuilt ' ~ model.name ~ ' whole: ' ~ reason, info=true) -%}
    {%- endif -%}
    {%- set inputs = input_hash() if is_incremental_model else made_of() -%}
    delete from meta.model_builds where model_name = '{{ model.name }}';
    insert into meta.model_builds
    values (
        '{{ model.name }}', '{{ code_hash() }}', '{{ inputs }}', '{{ invocation_id }}',
        cast(current_timestamp as timestamp), {{ rebuilt }}
    );
{%- endmacro %}

{#
    Hash of the rows of the inputs that this model names: staging tables by name, `forgotten_users` for what
    `lcm-ml forget` took away from loads that stay, `scoring_date` for the last full scoring.
#}
{% macro input_hash() -%}
    {%- if not execute -%}{{ return('') }}{%- endif -%}
    {%- set hashes = [] -%}
    {%- for name in model.config.meta.get('inputs', []) -%}
        {%- if name == 'forgotten_users' -%}
            {%- do hashes.append(forgotten_hash()) -%}
        {%- elif name == 'scoring_date' -%}
            {%- do hashes.append(scoring_date_hash()) -%}
        {%- else -%}
            {%- set found = run_query('select count(*), bit_xor(hash(t)) from staging.' ~ name ~ ' as t').rows[0] -%}
            {%- do hashes.append(found[0] ~ '-' ~ found[1]) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(local_md5(hashes | join('|'))) }}
{%- endmacro %}

{# The scoring date, and what is known before it. #}
{% macro scoring_date_hash() -%}
    {%- set found = run_query(
        'select as_of_date, input_hash from marts.as_of_dates where is_scoring_date'
    ).rows -%}
    {{ return(found[0][0] ~ '-' ~ found[0][1] if found | length else '') }}
{%- endmacro %}

{% macro forgotten_hash() -%}
    {%- set found = run_query(
        'select count(*), bit_xor(hash(id_hash, rows_changed)) from meta.forgotten_users where rows_changed > 0'
    ).rows[0] -%}
    {{ return(found[0] ~ '-' ~ found[1]) }}
{%- endmacro %}

