{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        meta={'loads_from': 'int_events', 'by_date': true},
        pre_hook=[
            "{{ forget_stale_as_of_dates(ref('as_of_dates')) }}",
            "{{ forget_reached_users(ref('as_of_dates')) }}"
        ],
        post_hook=[
            "{{ insert_other_dates(ref('as_of_dates'), dated_user_features_at, 'lapsed') }}",
            "{{ flag_outliers_again(ref('as_of_dates')) }}",
            "{{ record_as_of_dates(ref('as_of_dates')) }}",
            '{{ record_loads() }}'
        ]
    )
}}

{{ first_user_features(ref('as_of_dates'), 'lapsed') }}
