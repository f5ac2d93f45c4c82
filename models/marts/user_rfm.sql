{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        pre_hook="{{ forget_stale_as_of_dates(ref('as_of_dates')) }}",
        post_hook=[
            "{{ insert_other_dates(ref('as_of_dates'), user_rfm_at) }}",
            "{{ record_as_of_dates(ref('as_of_dates')) }}"
        ]
    )
}}

{{ first_date(ref('as_of_dates'), user_rfm_at) }}
