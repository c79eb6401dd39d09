"""Python's search for garbage in a server's process: it stops every request for a moment, so it is kept short."""

from __future__ import annotations

import gc


def settle() -> None:
    """What is in memory now, such as imported modules, stays: from now on only newer objects are searched.

    What an earlier call kept and nobody uses any more is freed, such as the model before the one that was promoted.
    """
    gc.unfreeze()  # else a cycle of objects that were kept would never be collected
    gc.collect()
    gc.freeze()
