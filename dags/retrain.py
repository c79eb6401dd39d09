"""One retraining round: train on a pinned release, evaluate on held-out videos, promote if the gate passes.

Woken by `release`; the run is skipped unless a round is due: enough masklets are new, or the campaign of the settings
wants one, or an automatic round was interrupted and continues. A run started by hand names its release and budget. A
killed training continues from its last saved step. With `rounds.approval = "person"` a person answers in Airflow before
a checkpoint that passed the gate is promoted.
"""

from __future__ import annotations

import logging

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowSkipException

from dags.common import CHECKPOINT, COMMON, GPU, RELEASE, connected

log = logging.getLogger(__name__)


@task
def start(params=None) -> str:
    """Pins the release, the parent checkpoint and the budget; returns the round id."""
    from engine.rounds import campaign, starting

    with connected(*starting.PERMANENT_ERRORS) as s:
        release = params["release"] or starting.due(s)
        summary = campaign.summary(s)
        if release is None:
            raise AirflowSkipException(f"no round is due ({summary})")
        log.info("a round starts on %s (%s)", release, summary)
        budget = starting.Budget(**{name: params[name] for name in ("steps", "lr", "parts", "seed")})
        return starting.start(s, release, budget)


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
def decide(round_id: str, ti=None) -> str:
    """Asks the gate, and promotes if it passes and no person has to approve: "promoted", "waits" or "kept"."""
    from engine.rounds import record, retraining

    with connected(record.NoSuchRound) as s:
        result = retraining.decide(s, round_id)
    ti.xcom_push(key="reasons", value="\n".join(f"- {reason}" for reason in result.reasons))
    return "promoted" if result.promoted else "waits" if result.waits else "kept"


@task.short_circuit(ignore_downstream_trigger_rules=False)
def ask(round_id: str, decision: str) -> bool:
    """Skips the question to a person unless the round waits for approval. It may have been answered by command."""
    from engine.rounds import record

    if decision != "waits":
        return False
    with connected(record.NoSuchRound) as s:
        return record.waiting_of(s, round_id) is not None


@task
def approved() -> None:
    """Is skipped if the person rejects the checkpoint."""


@task(trigger_rule="none_failed")
def conclude(round_id: str, decision: str | None, ti=None) -> str:
    """Records the person's answer, if a person was asked: "promoted", "kept", or "waits" without an answer."""
    from engine.rounds import record, retraining

    if decision is None:
        raise AirflowSkipException("no round started")
    answered = ti.xcom_pull(task_ids="approve")  # None after a rejection: Airflow then stores what it skipped
    rejected = ti.xcom_pull(task_ids="approve", key="skipmixin_key") is not None
    if decision != "waits":
        return decision
    person = ((answered or {}).get("responded_by_user") or {}).get("name") or "a person in Airflow"
    with connected(record.NoSuchRound) as s:
        if answered is None and not rejected:  # answered by command before Airflow asked
            result = retraining.decide(s, round_id)
        else:
            result = retraining.answer(s, round_id, approved=answered is not None, by=person)
    if result.waits:
        return "waits"
    return "promoted" if result.promoted else "kept"


@task(outlets=[CHECKPOINT])
def announce(decision: str) -> str:
    """Announces a promoted checkpoint."""
    if decision != "promoted":
        raise AirflowSkipException(f"the checkpoint was {decision}")
    return decision


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
    approve = ApprovalOperator(
        task_id="approve",
        subject="Promote the checkpoint of {{ ti.xcom_pull(task_ids='start') }}?",
        body="The gate passed:\n\n{{ ti.xcom_pull(task_ids='decide', key='reasons') }}",
        doc_md="Asks a person. The task waits in the state awaiting_input and holds no slot.",
    )
    round_id = start()
    trained = train(round_id)
    evaluated = evaluate(round_id)
    decided = decide(round_id)
    concluded = conclude(round_id, decided)
    trained >> evaluated >> decided
    ask(round_id, decided) >> approve >> approved() >> concluded
    announce(concluded)


retrain()
