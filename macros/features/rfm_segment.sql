{#
    The RFM segment of a recency and a frequency score, both 1 to 5 (5 is best): the map that RFM tools share. The rules
    stand in order, the first that holds counts, and together they cover all 25 pairs; a test holds them to that.
    The monetary score stands beside it: money follows frequency so closely that it would hardly change the map.
#}
{% macro rfm_segment(recency, frequency) -%}
    case
        when {{ recency }} = 5 and {{ frequency }} >= 4 then 'champions'
        when {{ recency }} >= 3 and {{ frequency }} >= 4 then 'loyal'
        when {{ recency }} >= 4 and {{ frequency }} >= 2 then 'potential loyalists'
        when {{ recency }} = 5 then 'new customers'
        when {{ recency }} = 4 then 'promising'
        when {{ recency }} = 3 and {{ frequency }} = 3 then 'needs attention'
        when {{ recency }} = 3 then 'about to sleep'
        when {{ frequency }} = 5 then 'cannot lose them'
        when {{ frequency }} >= 3 then 'at risk'
        when {{ recency }} = 2 or {{ frequency }} = 2 then 'hibernating'
        else 'lost'
    end
{%- endmacro %}
