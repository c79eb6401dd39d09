"""The queue and its page, served by this process: puts the application together from the settings, and runs it.

`queue_process.py` runs this as a child process. `delivery.py` decides what happens to a drained batch.
"""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

from engine import logs, trouble
from engine.processes.children import end_with_parent
from engine.processes.ports import check_port
from engine.rounds import campaign
from engine.services import Services, connect
from engine.serving import garbage
from engine.serving.delivery import deliverer, keep_sweeping
from engine.serving.webhooks import Notifier
from engine.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

    from annotation_queue.people.oidc import Provider

log = logging.getLogger(__name__)
HERE = "127.0.0.1"


def app(s: Services, *, deliver: bool = True) -> FastAPI:
    """The queue's application over these services.

    deliver: False leaves drained batches to another process.
    Without torch, the queue has no live refinement: people correct masks by hand. Raises OntologyError.
    """
    from annotation_queue.api.app import create_app
    from annotation_queue.refinement.timings import Timings
    from annotation_queue.tickets.ontologies import Ontologies
    from annotation_queue.tickets.store import GRACE_S
    from engine.serving.live_model import LiveModel
    from engine.serving.media import StoredMedia
    from engine.serving.overview import Overview
    from engine.serving.release_browser import ReleaseBrowser

    has_model = find_spec("torch") is not None
    if not has_model:
        log.warning("serving without live refinement: PyTorch is not installed (pip install 'masklet-engine[model]')")
    tickets, accounts = s.open_queue(GRACE_S)
    for ontology in s.ontologies():
        Ontologies(tickets.database, tickets.clock).add(ontology)
    media = StoredMedia(s)
    model = LiveModel(s, media) if has_model else None
    timings = Timings()
    return create_app(
        tickets,
        media,
        accounts=accounts,
        deliver=deliverer(s.settings) if deliver else None,
        secure_cookie=s.settings.queue.secure_cookie or s.settings.queue_url.startswith("https://"),
        segmenter=model,
        timings=timings,
        oidc=provider(s.settings),
        stuck=lambda: trouble.stuck(s.blobs),
        campaign=lambda: campaign.of_all(s),
        overview=Overview(s, tickets, lambda: None if model is None else model.loaded, timings.summary),
        release_source=ReleaseBrowser(s, media),
    )


def browse(s: Services, release: str, port: int, opened: Callable[[str], None]) -> None:
    """Serves the pages of a release to this machine alone, until Ctrl-C. port: 0 for a free one. Raises PortTaken.

    opened: gets the address of the page, on another thread, once the server answers.
    """
    import uvicorn

    from annotation_queue.api.releases import create_browser
    from engine.serving.media import StoredMedia
    from engine.serving.release_browser import ReleaseBrowser

    media = StoredMedia(s)
    application = create_browser(ReleaseBrowser(s, media), release, close=media.close)
    with socket.create_server((HERE, check_port(HERE, port))) as listener:
        address = f"http://{HERE}:{listener.getsockname()[1]}/"

        class Announced(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                threading.Thread(target=opened, args=(address,), daemon=True).start()  # a browser may need a while

        with suppress(KeyboardInterrupt):  # Ctrl-C is how it ends
            Announced(uvicorn.Config(application, log_level="warning", access_log=False)).run([listener])


def provider(settings: Settings) -> Provider | None:
    """The OpenID Connect provider that people may log in with; None: passwords only.

    Raises ValueError for settings that do not fit together.
    """
    from annotation_queue.people.oidc import Provider

    queue = settings.queue
    if queue.oidc_issuer is None:
        return None
    secret = queue.oidc_client_secret
    return Provider(
        queue.oidc_issuer,
        queue.oidc_client_id or "",
        None if secret is None else secret.get_secret_value(),
        page=settings.queue_url,
        name_claim=queue.oidc_name_claim,
        roles=[role.strip() for role in (queue.oidc_roles or "").split(",") if role.strip()],
    )


def serve(settings: Settings, *, deliver: bool = True, with_parent: bool = False) -> None:
    """Serves until Ctrl-C or SIGTERM. Raises PortTaken.

    deliver: False leaves drained batches to another process.
    with_parent: also ends when standard input closes.
    """
    import uvicorn

    logs.set_up(settings.logs)
    if with_parent:
        threading.Thread(target=end_with_parent, daemon=True).start()
    check_port(settings.queue.host, settings.queue.port)
    with connect(settings) as s:
        application = app(s, deliver=deliver)
        if deliver and not settings.airflow.url:
            threading.Thread(target=keep_sweeping, args=(settings,), daemon=True).start()
        garbage.settle()
        with Notifier(s, application.state.backend.tickets.database):
            uvicorn.run(
                application,
                host=settings.queue.host,
                port=settings.queue.port,
                log_level="warning",
                log_config=None,  # its lines look like ours
                access_log=False,
                proxy_headers=bool(settings.queue.proxies),  # else X-Forwarded-For is ignored: a client may invent it
                forwarded_allow_ips=settings.queue.proxies,
                http="h11",  # limits the head of a request to 64 KiB; httptools lets a stranger send one without end
                timeout_graceful_shutdown=5,  # the page repeats a propagation that is cut off
            )
