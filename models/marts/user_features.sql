{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        pre_hook="{{ forget_stale_as_of_dates(ref('as_of_dates')) }}",
        post_hook=["{{ record_as_of_dates(ref('as_of_dates')) }}", '{{ record_build() }}']
    )
}}

{{ user_features_for(pending_as_of_dates(ref('as_of_dates')), 'active') }}
