"""Logging in through an OpenID Connect provider, over HTTP.

The provider is `oidc-provider-mock`, which other people wrote: so the protocol is not only our own reading of it.
"""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from annotation_queue.api.app import create_app
from annotation_queue.api.asking import COOKIE
from annotation_queue.api.logins import FLOW_COOKIE
from annotation_queue.database import Database
from annotation_queue.tickets.store import TicketStore
from tests.annotation_queue.people.providers import agree, begin, finish, refusal
from tests.annotation_queue.synthetic_queue import PASSWORD, SyntheticMedia, add_people, serving

pytestmark = pytest.mark.filterwarnings("ignore:get_jwt_config:DeprecationWarning")  # of the honest provider


def test_a_person_with_an_account_logs_in_through_the_provider(honest, queue, browser):
    url, accounts = queue(honest)
    http = browser(url)
    assert http.get("/api/login").json() == {"oidc": "localhost"}
    answer = http.post("/api/login/oidc", headers={"Host": "evil.example.org"})
    flow = answer.headers["set-cookie"]
    assert all(word in flow for word in (FLOW_COOKIE, "HttpOnly", "SameSite=lax", "Max-Age=600", "Path=/api/login"))
    asked = dict(parse_qsl(urlsplit(answer.json()["url"]).query))
    assert (asked["redirect_uri"], asked["code_challenge_method"]) == (f"{url}/", "S256")
    back = agree(answer.json()["url"], "ann")
    assert back.startswith(f"{url}/?") and http.get(back).status_code == 200
    answer = finish(http, back)
    assert answer.status_code == 200
    session = next(c for c in answer.headers.get_list("set-cookie") if c.startswith(f"{COOKIE}="))
    assert "HttpOnly" in session and "SameSite=strict" in session and FLOW_COOKIE not in http.cookies
    me = answer.json()
    assert (me["name"], me["roles"]) == ("ann", ["annotator"]) and http.get("/api/me").json() == me
    claim = {"claim_id": "c"}
    assert http.post("/api/tickets/claim", json=claim).status_code == 403
    assert http.post("/api/tickets/claim", json=claim, headers={"X-CSRF-Token": me["csrf"]}).status_code == 204
    line = accounts.audited()[0]
    assert (line.actor, line.action, line.subject) == ("ann", "log in", "ann")
    assert json.loads(line.detail) == {"issuer": honest, "subject": "subject-of-ann"}
    assert http.post("/api/login", json={"name": "vera", "password": PASSWORD}).json()["name"] == "vera"


def test_an_answer_to_the_login_of_another_browser_is_rejected(honest, queue, browser):
    url, _ = queue(honest)
    mallory, ann, nobody = browser(url), browser(url), browser(url)
    mallorys = agree(begin(mallory), "vera")
    begin(ann)
    for http in (ann, nobody):  # with a login of their own under way, and with none
        assert "begun elsewhere" in refusal(finish(http, mallorys))
        assert http.get("/api/me").status_code == 401
    assert finish(mallory, mallorys).json()["name"] == "vera"


def test_an_unknown_state_is_rejected(honest, queue, browser):
    url, _ = queue(honest)
    http = browser(url)
    begin(http)
    for state in ("", "x", "\u00e9\x00", "a" * 4096):
        refusal(finish(http, {"state": state, "code": "x"}))


def test_a_code_works_once(honest, queue, browser):
    url, _ = queue(honest)
    http = browser(url)
    back = agree(begin(http), "ann")
    kept = http.cookies[FLOW_COOKIE]
    assert finish(http, back).status_code == 200
    assert "begun elsewhere" in refusal(finish(http, back))
    thief = browser(url)
    thief.cookies.set(FLOW_COOKIE, kept)
    assert "localhost refused this login: invalid_grant" in refusal(finish(thief, back))


def test_a_login_cancelled_at_the_provider_gives_its_error(honest, queue, browser):
    url, _ = queue(honest)
    http = browser(url)
    state = dict(parse_qsl(urlsplit(begin(http)).query))["state"]
    said = refusal(finish(http, {"state": state, "error": "access_denied"}))
    assert said == "localhost refused this login: access_denied"


def test_no_account_is_created_unless_roles_are_set(honest, queue, browser):
    url, accounts = queue(honest)
    http = browser(url)
    said = refusal(finish(http, agree(begin(http), "stranger")))
    assert said == "there is no account stranger here: ask an admin to add it"
    assert "stranger" not in {person.name for person in accounts.list()}
    (line,) = accounts.audited(limit=1)
    assert (line.action, json.loads(line.detail)["why"]) == ("fail to log in", said)


def test_a_new_person_gets_the_set_roles_and_existing_people_keep_theirs(honest, queue, browser):
    url, accounts = queue(honest, roles=["annotator"])
    for name, roles in (("stranger", ["annotator"]), ("vera", ["verifier"]), ("stranger", ["annotator"])):
        http = browser(url)
        assert finish(http, agree(begin(http), name)).json()["roles"] == roles
    assert [line.action for line in accounts.audited(limit=4)] == ["log in", "log in", "log in", "set person"]
    with_password = browser(url).post("/api/login", json={"name": "stranger", "password": ""})
    assert with_password.status_code == 401


def test_a_disabled_person_and_the_pipeline_cannot_log_in(honest, queue, browser):
    url, accounts = queue(honest, roles=["annotator"])
    accounts.disable("ann")
    for name in ("ann", "pipeline"):
        http = browser(url)
        assert f"the account {name} may not log in here" in refusal(finish(http, agree(begin(http), name)))


@pytest.mark.server
def test_a_queue_without_a_provider_has_no_provider_login(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/queue.db")
    app = create_app(TicketStore(database), SyntheticMedia(8), accounts=add_people(database))
    with serving(app) as url:
        assert httpx.get(f"{url}/api/login").json() == {"oidc": None}
        assert httpx.post(f"{url}/api/login/oidc").status_code == 404
    database.close()
