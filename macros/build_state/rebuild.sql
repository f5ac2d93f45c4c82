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
    {%- set before = run_query("select code_hash, input_hash from meta.model_builds where model_name = '" ~ model.name ~ "'") -%}
    {%- if before.rows | length == 0 -%}{{ return('it was never built') }}{%- endif -%}
    {%- if before.rows[0][0] != code_hash() -%}{{ return('its code, settings or source changed') }}{%- endif -%}
    {%- if before.rows[0][1] != input_hash() -%}{{ return('the rows it is made of changed') }}{%- endif -%}
    {%- if not model.config.meta.get('by_date') and stale_loads() -%}{{ return('a load it holds is gone') }}{%- endif -%}
    {{ return(none) }}
{%- endmacro %}

{# post-hook, in the model's own transaction: what it was now built from. #}
{% macro record_build() -%}
    {%- if not execute -%}{{ return('') }}{%- endif -%}
    {%- set reason = rebuild_reason() -%}
    {%- set rebuilt = flags.FULL_REFRESH or reason is not none -%}
    {%- if rebuilt and reason is not none and reason != 'it was never built' -%}
        {%- do log('lcm: rebuilt ' ~ model.name ~ ' whole: ' ~ reason, info=true) -%}
    {%- endif -%}
    delete from meta.model_builds where model_name = '{{ model.name }}';
    insert into meta.model_builds
    values (
        '{{ model.name }}', '{{ code_hash() }}', '{{ input_hash() }}', '{{ invocation_id }}',
        cast(current_timestamp as timestamp), {{ rebuilt }}
    );
{%- endmacro %}

{#
    Hash of what gives this model its meaning: its SQL, the macros it uses, the same of its ancestors, the vars and
    the source mode. Seeds count by their checksum.
#}
{% macro code_hash() -%}
    {%- set parts = [source_mode()] -%}
    {%- for name in setting_names() if name not in settings_without_effect_on_models() -%}
        {%- do parts.append(name ~ '=' ~ tojson(var(name))) -%}
    {%- endfor -%}
    {%- set seen = {} -%}
    {%- do add_code(model.unique_id, parts, seen) -%}
    {{ return(local_md5(parts | join('\n'))) }}
{%- endmacro %}

{% macro add_code(unique_id, parts, seen) -%}
    {%- if unique_id in seen -%}{{ return('') }}{%- endif -%}
    {%- do seen.update({unique_id: true}) -%}
    {%- set node = graph.nodes.get(unique_id) -%}
    {%- if node is none -%}{{ return('') }}{%- endif -%}
    {%- if node.resource_type == 'seed' -%}
        {%- do parts.append(node.checksum.checksum) -%}
        {{ return('') }}
    {%- endif -%}
    {%- do parts.append(node.raw_code) -%}
    {%- for macro_id in node.depends_on.macros | sort -%}
        {%- do add_macro(macro_id, parts, seen) -%}
    {%- endfor -%}
    {%- for parent in node.depends_on.nodes | sort -%}
        {%- do add_code(parent, parts, seen) -%}
    {%- endfor -%}
{%- endmacro %}

{% macro add_macro(macro_id, parts, seen) -%}
    {%- if macro_id in seen or not macro_id.startswith('macro.lcm.') -%}{{ return('') }}{%- endif -%}
    {%- do seen.update({macro_id: true}) -%}
    {%- set found = context.get(macro_id.split('.') | last) -%}
    {%- if found is not none -%}
        {%- do parts.append(found.macro.macro_sql) -%}
        {%- for used in found.macro.depends_on.macros | sort -%}
            {%- do add_macro(used, parts, seen) -%}
        {%- endfor -%}
    {%- endif -%}
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

