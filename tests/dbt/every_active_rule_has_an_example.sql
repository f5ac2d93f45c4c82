-- A rule of the next best action that no example expects is a rule that nobody tests.
select rules.rule_id
from {{ ref('action_rules') }} as rules
left join {{ ref('action_rule_examples') }} as examples on rules.rule_id = examples.expected_rule
where rules.is_active and examples.example is null
