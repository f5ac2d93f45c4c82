-- Whoever bought in the active window before a labelled date has a label there, and nobody else.
with population as (
    select
        features.user_id,
        features.as_of_date
    from {{ ref('user_features') }} as features
    inner join {{ ref('as_of_dates') }} as dates on features.as_of_date = dates.as_of_date
    where dates.is_labelled and features.is_active_buyer
)

select
    population.user_id as expected_user_id,
    labels.user_id as labelled_user_id
from population
full join {{ ref('user_churn_labels') }} as labels
    on
        population.user_id = labels.user_id
        and population.as_of_date = labels.as_of_date
where population.user_id is null or labels.user_id is null
