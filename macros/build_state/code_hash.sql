{#
    Hash of what gives this model its meaning: its SQL, the macros it uses, the same of its ancestors, the vars and
    the source mode. Seeds count by their checksum.
#}
{% macro code_hash() -%}
    {%- set known = hashes_of_this_run() -%}
    {%- if 'settings' not in known -%}
        {%- set parts = [source_mode()] -%}
        {%- for name in setting_names() if name not in settings_without_effect_on_models() -%}
            {%- do parts.append(name ~ '=' ~ tojson(var(name))) -%}
        {%- endfor -%}
        {%- do known.update({'settings': local_md5(parts | join('\n'))}) -%}
    {%- endif -%}
    {{ return(local_md5(known['settings'] ~ node_hash(model.unique_id))) }}
{%- endmacro %}

{#
    Shared by all models of a run: most nodes and macros are asked for by many of them. A program that runs dbt twice can
    have the same graph both times, with other vars.
#}
{% macro hashes_of_this_run() -%}
    {%- if 'lcm_hashes' not in graph or graph['lcm_hashes'].run != invocation_id -%}
        {%- do graph.update({'lcm_hashes': {'run': invocation_id}}) -%}
    {%- endif -%}
    {{ return(graph['lcm_hashes']) }}
{%- endmacro %}

{% macro node_hash(unique_id) -%}
    {%- set known, node = hashes_of_this_run(), graph.nodes.get(unique_id) -%}
    {%- if node is none -%}{{ return('') }}{%- endif -%}
    {%- if node.resource_type == 'seed' -%}{{ return(node.checksum.checksum) }}{%- endif -%}
    {%- if unique_id not in known -%}
        {%- set parts = [node.raw_code] -%}
        {%- for macro_id in node.depends_on.macros | sort -%}{%- do parts.append(macro_hash(macro_id)) -%}{%- endfor -%}
        {%- for parent in node.depends_on.nodes | sort -%}{%- do parts.append(node_hash(parent)) -%}{%- endfor -%}
        {%- do known.update({unique_id: local_md5(parts | join('\n'))}) -%}
    {%- endif -%}
    {{ return(known[unique_id]) }}
{%- endmacro %}

{% macro macro_hash(macro_id) -%}
    {%- set known = hashes_of_this_run() -%}
    {%- if not macro_id.startswith('macro.lcm.') -%}{{ return('') }}{%- endif -%}
    {%- if macro_id not in known -%}
        {%- set found, parts = context.get(macro_id.split('.') | last), [] -%}
        {%- if found is not none -%}
            {%- do parts.append(found.macro.macro_sql) -%}
            {%- for used in found.macro.depends_on.macros | sort if used != macro_id -%}
                {%- do parts.append(macro_hash(used)) -%}
            {%- endfor -%}
        {%- endif -%}
        {%- do known.update({macro_id: local_md5(parts | join('\n'))}) -%}
    {%- endif -%}
    {{ return(known[macro_id]) }}
{%- endmacro %}
