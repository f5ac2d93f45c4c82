"""Marts to Polars frames, and splits of them by as_of_date."""
