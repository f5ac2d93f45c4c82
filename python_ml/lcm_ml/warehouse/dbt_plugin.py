"""What profiles.yml has dbt do before it opens the warehouse: wait its turn, as lcm-ml does, and say for whom."""

import os
from typing import Any

from dbt.adapters.duckdb.plugins import BasePlugin
from dbt_common.exceptions import DbtRuntimeError

from lcm_ml.errors import LcmError
from lcm_ml.warehouse.connection import LOCK_HELD, connect, writer_lock


class Plugin(BasePlugin):
    """dbt makes one of these for each invocation that opens the warehouse."""

    def initialize(self, plugin_config: dict[str, Any]) -> None:  # noqa: ARG002
        """Wait for the writer lock and for the file, which also brings an older layout along.

        Neither is held from here on: dbt's own connection keeps others out, and its end cannot be known here.

        Raises:
            DbtRuntimeError: when it is held for too long, or the warehouse is refused.
        """
        if os.environ.get(LOCK_HELD):
            return
        try:
            with writer_lock("dbt", _tell), connect(notify=_tell):
                pass
        except LcmError as error:
            raise DbtRuntimeError(str(error)) from None


def _tell(message: str) -> None:
    from dbt_common.events.base_types import EventLevel
    from dbt_common.events.functions import fire_event
    from dbt_common.events.types import Note

    fire_event(Note(msg=f"lcm: {message}"), level=EventLevel.WARN)
