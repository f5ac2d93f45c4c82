with raw_users as (
    {{ raw_rows('users') }}
)

select
    {{ clean_id('user_id') }} as user_id,
    signed_up_at,
    {{ clean_text('country') }} as country,
    lower({{ clean_text('acquisition_channel') }}) as acquisition_channel,
    marketing_consent,
    age_band,
    gender,
    income_band,
    marital_status,
    household_size,
    home_ownership
from raw_users
where {{ clean_id('user_id') }} is not null
{{ latest_per_key(clean_id('user_id')) }}
