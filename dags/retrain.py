"""One retraining round: train on a pinned release, evaluate on held-out videos, promote if the gate passes.

Woken by `release`; the run is skipped unless a round is due: enough masklets are new, or the campaign of the settings
wants one, or an automatic round was interrupted and continues. A run started by hand names its release and budget. A
killed training continues from its last saved step.
"""

from __future__ import annotations

import logging

from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowSkipException

from dags.common import CHECKPOINT, COMMON, GPU, RELEASE, connected

log = logging.getLogger(__name__)


@dag(
    schedule=[RELEASE],
    params={
        "release": Param(None, type=["null", "string"], description="release to train on; empty: only if one is due"),
        "steps": Param(None, type=["null", "integer"], minimum=1, description="empty: the setting"),
        "lr": Param(None, type=["null", "number"], exclusiveMinimum=0, description="empty: the setting"),
        "parts": Param(
            None, type=["null", "string"], enum=[None, "all", "memory", "decoder"], description="empty: the setting"
        ),
        "seed": Param(1, type="integer", minimum=0),
    },
    tags=["masklets", "model"],
    doc_md=__doc__,
    **COMMON,
)
def retrain():
    @task
    def start(params=None) -> str:
        """Pins the release, the parent checkpoint and the budget; returns the round id."""
        from engine import campaign
        from engine.rounds import starting

        with connected(*starting.PERMANENT_ERRORS) as s:
            release = params["release"] or starting.due(s)
            summary = campaign.summary(s)
            if release is None:
                raise AirflowSkipException(f"no round is due ({summary})")
            log.info("a round starts on %s (%s)", release, summary)
            budget = {name: params[name] for name in ("steps", "lr", "parts", "seed")}
            return starting.start(s, release, **budget)

    @task(pool=GPU)
    def train(round_id: str) -> str:
        """Trains, or continues a killed training."""
        from engine.rounds import retraining

        with connected(*retraining.permanent_errors()) as s:
            return retraining.train(s, round_id)

    @task(pool=GPU)
    def evaluate(round_id: str) -> str:
        """Measures the old and the new checkpoint on held-out videos."""
        from engine.rounds import retraining

        with connected(*retraining.permanent_errors()) as s:
            return retraining.evaluate(s, round_id)

    @task
    def decide(round_id: str) -> str:
        """Promotes the checkpoint if the gate passes: "promoted" or "kept"."""
        from engine.rounds import record, retraining

        with connected(record.NoSuchRound) as s:
            return "promoted" if retraining.decide(s, round_id).promoted else "kept"

    @task(outlets=[CHECKPOINT])
    def announce(decision: str) -> str:
        """Announces a promoted checkpoint."""
        if decision != "promoted":
            raise AirflowSkipException(f"the checkpoint was {decision}")
        return decision

    round_id = start()
    trained = train(round_id)
    evaluated = evaluate(round_id)
    decided = decide(round_id)
    trained >> evaluated >> decided
    announce(decided)


retrain()
