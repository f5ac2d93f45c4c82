{# A row of int_events as a number, whatever load brought it: what features may depend on. #}
{% macro event_row_hash() -%}
    {{ return(row_hash([
        'event_id', 'user_id', 'event_time', 'event_type', 'session_id', 'order_key', 'product_id', 'quantity',
        'amount', 'discount', 'rating', 'channel', 'device', 'category', 'brand'
    ])) }}
{%- endmacro %}
