"""One process of a round's training: `torchrun ... -m engine.rounds.member ROUND`. See `launching`."""

from __future__ import annotations

import logging
import sys

from engine.rounds import launching, record, retraining
from engine.services import connect
from storage.errors import first_line


def main(round_id: str) -> None:
    """Trains as one of the processes; the first one writes. Leaves the reason of a failure in one line."""
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
