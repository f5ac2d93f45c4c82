"""One user's card, where the report was asked for it."""

import duckdb

from lcm_ml.insights.profile import card, read_profile
from lcm_ml.reporting.section import Section, Table


def profile(con: duckdb.DuckDBPyConnection, user_id: str) -> Section:
    """The card of a user, as `lcm-ml profile` prints it.

    Raises:
        LcmError: when there is no such user.
    """
    found = read_profile(con, user_id)
    rows = tuple(
        (part.title if place == 0 else "", label, text)
        for part in card(found)
        for place, (label, text) in enumerate(part.lines)
    )
    table = Table(f"Card of user {user_id}", ("about", "what", "as known"), rows, labels=3)
    text = f"All that is known of this user as of {found['profile']['as_of_date']}. Sensitive attributes are marked; "
    return Section("profile", f"User {user_id}", text + "models never use them.", table=table)
