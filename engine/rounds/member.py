"""One process of a round's training: `torchrun ... -m engine.rounds.member ROUND`. See `launching`.

torchrun starts each process in a session of its own and keeps the round's lock for itself. If torchrun is killed, the
lock is free, so the process must end too: the next training of the round would write the same files.
"""

from __future__ import annotations

import logging
import os
import sys
import threading

from engine.processes.children import end_when_orphaned


def main(round_id: str) -> None:
    """Trains as one of the processes; the first one writes. Leaves the reason of a failure in one line."""
    threading.Thread(target=end_when_orphaned, args=(os.getppid(),), daemon=True).start()
    from engine.rounds import launching, record, retraining  # after the start of the watch: importing them takes long
    from engine.services import connect
    from storage.errors import first_line

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(name)s %(message)s")
    with connect() as s:
        try:
            retraining.train_round(s, record.start_of(s, round_id))
        except Exception as error:
            for_good = retraining.is_permanent(error)
            launching.leave_problem(retraining.folder_of(s, round_id), first_line(error), for_good=for_good)
            raise


if __name__ == "__main__":
    main(sys.argv[1])
