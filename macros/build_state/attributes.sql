{#
    What an incremental model copies from small tables that change: the rows it holds follow, so that a new product or a
    newly known visitor is no reason to build all events anew. The day hashes change with them, and so do the dates.
    pre-hooks, in the model's own transaction. A cycle of `lcm-ml watch` builds none of those tables, so that there is
    nothing to follow.
#}
{% macro follows_attributes() -%}
    {{ return(execute and is_incremental() and env_var('LCM_BUILD_COMMAND', '') != 'watch') }}
{%- endmacro %}

{% macro follow_identities() -%}
    {#- Before any return, so that dbt draws the edge. -#}
    {%- set identities_table = ref('stg_identities') -%}
    {%- if not follows_attributes() -%}{{ return('') }}{%- endif -%}
    update {{ this }} as held
    set linked_user_id = known.linked_user_id, linked_date = known.linked_date
    from (
        select distinct
            rows_held.user_id,
            identities.user_id as linked_user_id,
            identities.linked_date
        from {{ this }} as rows_held
        left join {{ identities_table }} as identities on rows_held.user_id = identities.anonymous_id
        where
            rows_held.linked_user_id is distinct from identities.user_id
            or rows_held.linked_date is distinct from identities.linked_date
    ) as known
    where held.user_id = known.user_id
{%- endmacro %}

{% macro follow_products(known_column=none) -%}
    {#- Before any return, so that dbt draws the edge. -#}
    {%- set products_table = ref('stg_products') -%}
    {%- if not follows_attributes() -%}{{ return('') }}{%- endif -%}
    update {{ this }} as held
    set
        category = known.category,
        brand = known.brand
        {%- if known_column %}, {{ known_column }} = known.is_known{% endif %}
    from (
        select distinct
            rows_held.product_id,
            products.category,
            products.brand,
            products.product_id is not null as is_known
        from {{ this }} as rows_held
        left join {{ products_table }} as products on rows_held.product_id = products.product_id
        where
            rows_held.product_id is not null
            and (
                rows_held.category is distinct from products.category
                or rows_held.brand is distinct from products.brand
                {%- if known_column %} or rows_held.{{ known_column }} != (products.product_id is not null){% endif %}
            )
    ) as known
    where held.product_id = known.product_id
{%- endmacro %}
