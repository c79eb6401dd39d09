"""Logging in through an OpenID Connect provider: over HTTP, in a browser, and against one that lies.

`oidc-provider-mock` is a provider that others wrote, so that both sides of the talk are not our own reading of it. It
asks for no PKCE and never lies; `Liar` does both.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import time
import warnings
from contextlib import ExitStack
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from annotation_queue.api.app import create_app
from annotation_queue.api.asking import COOKIE
from annotation_queue.api.logins import FLOW_COOKIE
from annotation_queue.database import Database
from annotation_queue.errors import LoginRefused, ProviderUnreachable
from annotation_queue.people.accounts import FAILURES
from annotation_queue.people.oidc import AT_ONCE, KNOWN_S, LEEWAY_S, Provider
from annotation_queue.tickets.store import Store
from tests.annotation_queue.browsing import Page
from tests.annotation_queue.synthetic_queue import PASSWORD, SyntheticMedia, add_people, serving, tickets

pytestmark = pytest.mark.filterwarnings("ignore:get_jwt_config:DeprecationWarning")  # of the honest provider
CLIENT, SECRET = "masklets", "a secret/with: signs"


@pytest.fixture(scope="module")
def honest():
    """The issuer of a real provider; it calls somebody what /users/{subject} was told."""
    with warnings.catch_warnings(record=True):  # it uses a part of Authlib that is on its way out
        import oidc_provider_mock
    with oidc_provider_mock.run_server_in_thread(require_nonce=True) as server:
        issuer = f"http://localhost:{server.server_port}"
        for name in ("ann", "vera", "stranger", "pipeline"):
            called = {"preferred_username": name, "email": f"{name}@example.org"}
            httpx.put(f"{issuer}/users/subject-of-{name}", json=called).raise_for_status()
        yield issuer


def encoded(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Liar:
    """A provider whose ID tokens say what a test wants. It checks the redirect URI, the client and PKCE."""

    def __init__(self, key):
        self.key = self.signs = key
        self.claims, self.header, self.description, self.userinfo = {}, {"alg": "RS256", "kid": "one"}, {}, {}
        self.asked = {}  # code -> the query of its authorization request
        self.requests = []
        self.issuer = ""

    def authorize(self, url):
        """What a browser does at the provider: the query that it comes back with."""
        asked = dict(parse_qsl(urlsplit(url).query))
        code = f"code-{len(self.asked)}"
        self.asked[code] = asked
        return {"code": code, "state": asked["state"]}

    def id_token(self, nonce):
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "sub": "s", "exp": now + 60, "iat": now, "nonce": nonce}
        claims = {**claims, "preferred_username": "ann", **self.claims}
        claims = {name: value for name, value in claims.items() if value is not None}
        if self.header["alg"] in ("none", "HS256"):  # by hand: the library refuses to write what it refuses to read
            text = ".".join(encoded(json.dumps(part).encode()) for part in (self.header, claims))
            mac = hmac.digest(self.key.as_pem(private=False), text.encode(), "sha256")
            return f"{text}.{encoded(mac) if self.header['alg'] == 'HS256' else ''}"
        return jwt.encode(self.header, claims, self.signs, algorithms=[self.header["alg"]])

    def app(self):
        app = FastAPI()

        @app.get("/healthz")
        def health():
            return {}

        @app.get("/.well-known/openid-configuration")
        def describe():
            self.requests.append("description")
            places = {
                "authorization_endpoint": "authorize?tenant=7",
                "token_endpoint": "token",
                "jwks_uri": "keys",
                "userinfo_endpoint": "userinfo",
            }
            return {"issuer": self.issuer} | {k: f"{self.issuer}/{v}" for k, v in places.items()} | self.description

        @app.get("/keys")
        def keys():
            unknown = {"kty": "lattice", "kid": "two"}
            return {"keys": [unknown, self.key.as_dict(private=False)]}

        @app.get("/userinfo")
        def userinfo(request: Request):
            assert request.headers["authorization"] == "Bearer access"
            return self.userinfo

        @app.post("/token")
        async def token(request: Request):
            form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
            asked = self.asked.pop(form["code"], None)
            basic = base64.b64encode(b"masklets:a+secret%2Fwith%3A+signs").decode()
            posted = form.get("client_id") == CLIENT and form.get("client_secret") == SECRET
            if not posted and request.headers.get("authorization") != f"Basic {basic}":
                return JSONResponse({"error": "invalid_client"}, 401)
            digest = hashlib.sha256(form["code_verifier"].encode()).digest()
            right = asked is not None and form["redirect_uri"] == asked["redirect_uri"]
            right = right and encoded(digest) == asked["code_challenge"]
            if not right:
                return JSONResponse({"error": "invalid_grant"}, 400)
            self.requests.append("post" if posted else "basic")
            return {"token_type": "Bearer", "access_token": "access", "id_token": self.id_token(asked["nonce"])}

        return app


@pytest.fixture(scope="module")
def key():
    return RSAKey.generate_key(2048, {"kid": "one"})


@pytest.fixture
def liar(key):
    """It says the truth until told otherwise."""
    liar = Liar(key)
    with serving(liar.app()) as liar.issuer:
        yield liar


@pytest.fixture
def queue(tmp_path):
    """Starts queues that know a provider: gives (URL, accounts)."""
    with ExitStack() as stack:

        def start(issuer, **options):
            database = Database(f"sqlite:///{tmp_path}/queue.db")
            stack.callback(database.close)
            accounts, store = add_people(database), Store(database)
            store.open_batch("batch-1", tickets(3, frame_count=8))
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]  # the provider must know where people come from before we serve
            page = f"http://127.0.0.1:{port}"
            provider = Provider(issuer, CLIENT, SECRET, page=page, **options)
            app = create_app(store, SyntheticMedia(8), accounts=accounts, oidc=provider)
            return stack.enter_context(serving(app, port)), accounts

        yield start


@pytest.fixture
def browser():
    """Makes HTTP clients that keep cookies as a browser does."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(httpx.Client(base_url=url))


def agree(url, name):
    """Agree at the real provider as `name`: where it sends the browser."""
    answer = httpx.post(url, data={"sub": f"subject-of-{name}"})
    assert answer.status_code == 302, answer.text
    return answer.headers["location"]


def begin(http):
    answer = http.post("/api/login/oidc")
    assert answer.status_code == 200, answer.text
    return answer.json()["url"]


def finish(http, sent):
    sent = dict(parse_qsl(urlsplit(sent).query)) if isinstance(sent, str) else sent
    return http.post("/api/login/oidc/finish", json=sent)


def refusal(answer, status=401, kind="LoginRefused"):
    """The line of a refusal, which leaves no session."""
    assert (answer.status_code, answer.json()["kind"]) == (status, kind), answer.text
    assert COOKIE not in answer.cookies
    return answer.json()["error"]


# --- the honest provider -----------------------------------------------------------------------------------------


def test_whoever_has_an_account_comes_in_as_with_a_password(honest, queue, browser):
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


def test_an_answer_to_the_login_of_another_browser_is_refused(honest, queue, browser):
    url, _ = queue(honest)
    mallory, ann, nobody = browser(url), browser(url), browser(url)
    mallorys = agree(begin(mallory), "vera")
    begin(ann)
    for http in (ann, nobody):  # with a login of their own under way, and with none
        assert "begun elsewhere" in refusal(finish(http, mallorys))
        assert http.get("/api/me").status_code == 401
    assert finish(mallory, mallorys).json()["name"] == "vera"


def test_a_state_that_was_never_given_is_refused(honest, queue, browser):
    url, _ = queue(honest)
    http = browser(url)
    begin(http)
    for state in ("", "x", "\u00e9\x00", "a" * 4096):
        refusal(finish(http, {"state": state, "code": "x"}))


def test_a_code_is_good_once(honest, queue, browser):
    url, _ = queue(honest)
    http = browser(url)
    back = agree(begin(http), "ann")
    kept = http.cookies[FLOW_COOKIE]
    assert finish(http, back).status_code == 200
    assert "begun elsewhere" in refusal(finish(http, back))
    thief = browser(url)
    thief.cookies.set(FLOW_COOKIE, kept)
    assert "localhost refused this login: invalid_grant" in refusal(finish(thief, back))


def test_whoever_changes_their_mind_is_told_so(honest, queue, browser):
    url, _ = queue(honest)
    http = browser(url)
    state = dict(parse_qsl(urlsplit(begin(http)).query))["state"]
    said = refusal(finish(http, {"state": state, "error": "access_denied"}))
    assert said == "localhost refused this login: access_denied"


def test_nobody_gets_an_account_unless_that_is_set(honest, queue, browser):
    url, accounts = queue(honest)
    http = browser(url)
    said = refusal(finish(http, agree(begin(http), "stranger")))
    assert said == "there is no account stranger here: ask an admin to add it"
    assert "stranger" not in {person.name for person in accounts.list()}
    (line,) = accounts.audited(limit=1)
    assert (line.action, json.loads(line.detail)["why"]) == ("fail to log in", said)


def test_a_newcomer_gets_the_roles_that_are_set_and_everybody_else_keeps_theirs(honest, queue, browser):
    url, accounts = queue(honest, roles=["annotator"])
    for name, roles in (("stranger", ["annotator"]), ("vera", ["verifier"]), ("stranger", ["annotator"])):
        http = browser(url)
        assert finish(http, agree(begin(http), name)).json()["roles"] == roles
    assert [line.action for line in accounts.audited(limit=4)] == ["log in", "log in", "log in", "set person"]
    with_password = browser(url).post("/api/login", json={"name": "stranger", "password": ""})
    assert with_password.status_code == 401


def test_whoever_is_shut_out_stays_out_and_the_pipeline_is_no_person(honest, queue, browser):
    url, accounts = queue(honest, roles=["annotator"])
    accounts.disable("ann")
    for name in ("ann", "pipeline"):
        http = browser(url)
        assert f"the account {name} may not log in here" in refusal(finish(http, agree(begin(http), name)))


# --- a provider that lies ----------------------------------------------------------------------------------------


def test_a_token_that_holds_is_believed(liar, queue, browser):
    url, _ = queue(liar.issuer)
    http = browser(url)
    asked = begin(http)
    assert "tenant=7" in asked
    assert finish(http, liar.authorize(asked)).json()["name"] == "ann"
    liar.description = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    url, _ = queue(liar.issuer)
    liar.claims = {"aud": [CLIENT, "another"], "azp": CLIENT}
    http = browser(url)
    assert finish(http, liar.authorize(begin(http))).json()["name"] == "ann"
    assert [word for word in liar.requests if word != "description"] == ["basic", "post"]


@pytest.mark.parametrize(
    ("claims", "word"),
    [
        ({"nonce": "another"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"aud": "another"}, "aud"),
        ({"aud": []}, "aud"),
        ({"aud": [CLIENT, "another"]}, "another program"),
        ({"azp": "another"}, "another program"),
        ({"iss": "https://another.example.org"}, "iss"),
        ({"exp": time.time() - LEEWAY_S - 60}, "expired"),
        ({"exp": "tomorrow"}, "exp"),
        ({"exp": None}, "exp"),
        ({"iat": time.time() + 3600}, "in the future"),
        ({"sub": None}, "sub"),
        ({"sub": 7}, "sub"),
        ({"preferred_username": None}, "no claim preferred_username"),
        ({"preferred_username": ["ann"]}, "no claim preferred_username"),
        ({"preferred_username": "../ann"}, "no name here"),
        ({"preferred_username": "a\nb"}, "no name here"),
    ],
)
def test_a_token_with_wrong_claims_is_refused(liar, queue, browser, claims, word):
    url, _ = queue(liar.issuer, roles=["annotator"])
    liar.claims = claims
    http = browser(url)
    said = refusal(finish(http, liar.authorize(begin(http))))
    assert word in said and "\n" not in said
    assert http.get("/api/me").status_code == 401


def test_a_token_with_another_signature_is_refused(liar, queue, browser):
    url, _ = queue(liar.issuer)
    http = browser(url)
    other, elliptic = RSAKey.generate_key(2048), ECKey.generate_key("P-256")
    for signs, header in (
        (other, {"alg": "RS256", "kid": "one"}),
        (liar.key, {"alg": "RS256", "kid": "two"}),
        (None, {"alg": "HS256", "kid": "one"}),  # the public key taken for a shared secret
        (None, {"alg": "none", "kid": "one"}),
        (elliptic, {"alg": "ES256", "kid": "one"}),
    ):
        liar.signs, liar.header = signs, header
        assert "does not hold" in refusal(finish(http, liar.authorize(begin(http))))


def test_a_code_needs_the_verifier_of_its_own_login(liar, queue, browser):
    url, _ = queue(liar.issuer)
    http, other = browser(url), browser(url)
    stolen = liar.authorize(begin(other))["code"]
    state = liar.authorize(begin(http))["state"]
    assert "invalid_grant" in refusal(finish(http, {"state": state, "code": stolen}))


def test_a_name_may_come_from_the_userinfo_of_the_same_person(liar, queue, browser):
    url, _ = queue(liar.issuer)
    http = browser(url)
    liar.claims = {"preferred_username": None}
    liar.userinfo = {"sub": "somebody else", "preferred_username": "vera"}
    assert "no claim preferred_username" in refusal(finish(http, liar.authorize(begin(http))))
    liar.userinfo = {"sub": "s", "preferred_username": "ann"}
    assert finish(http, liar.authorize(begin(http))).json()["name"] == "ann"


def test_an_e_mail_address_is_a_name_once_it_is_verified(liar, queue, browser):
    url, _ = queue(liar.issuer, name_claim="email", roles=["verifier"])
    http = browser(url)
    liar.claims = {"email": "new@example.org"}
    for verified in (None, False, "true"):
        liar.claims["email_verified"] = verified
        assert "has not verified" in refusal(finish(http, liar.authorize(begin(http))))
    liar.claims["email_verified"] = True
    assert finish(http, liar.authorize(begin(http))).json()["name"] == "new@example.org"


def test_codes_are_tried_as_often_as_passwords(liar, queue, browser):
    url, _ = queue(liar.issuer)
    http = browser(url)
    state = dict(parse_qsl(urlsplit(begin(http)).query))["state"]
    for _ in range(3 * FAILURES):  # nothing to guess: the queue knows by itself that these are not its own
        refusal(finish(http, {"state": "x", "code": "x"}))
    for _ in range(FAILURES):
        refusal(finish(http, {"state": state, "code": "guessed"}))
    assert "wait" in refusal(finish(http, liar.authorize(begin(http))), 429, "TooManyLogins")


@pytest.mark.parametrize(
    ("description", "word"),
    [
        ({"issuer": "https://another.example.org"}, "calls itself https://another.example.org"),
        ({"authorization_endpoint": "http://another.example.org/a"}, "no usable authorization_endpoint"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "no usable authorization_endpoint"),
    ],
)
def test_a_description_that_cannot_be_right_is_refused(liar, queue, browser, description, word):
    url, _ = queue(liar.issuer)
    liar.description = description
    assert word in refusal(browser(url).post("/api/login/oidc"), 424, "ProviderUnreachable")


def test_a_description_is_asked_for_again_when_it_is_old(liar, clock):
    provider = Provider(liar.issuer, CLIENT, SECRET, page="http://127.0.0.1:1", clock=clock)
    for _ in range(3):
        provider.begin()
    clock.advance(KNOWN_S)
    provider.begin()
    assert liar.requests == ["description"] * 2


# --- no provider -------------------------------------------------------------------------------------------------


def test_a_provider_that_does_not_answer_leaves_the_password(queue, browser):
    url, _ = queue("http://127.0.0.1:9")
    http = browser(url)
    said = refusal(http.post("/api/login/oidc"), 424, "ProviderUnreachable")
    assert said == "127.0.0.1 does not answer; try again, or log in by password"
    assert http.post("/api/login", json={"name": "ann", "password": PASSWORD}).status_code == 200


def test_a_provider_that_hangs_does_not_take_every_thread():
    provider = Provider("http://127.0.0.1:9", CLIENT, page="http://127.0.0.1:1")
    for _ in range(AT_ONCE):
        provider._asking.acquire()
    with pytest.raises(ProviderUnreachable, match="too much at once"):
        provider.begin()
    provider._asking.release()
    with pytest.raises(ProviderUnreachable, match="does not answer"):
        provider.begin()


def test_a_queue_without_a_provider_says_so(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/queue.db")
    app = create_app(Store(database), SyntheticMedia(8), accounts=add_people(database))
    with serving(app) as url:
        assert httpx.get(f"{url}/api/login").json() == {"oidc": None}
        assert httpx.post(f"{url}/api/login/oidc").status_code == 404
    database.close()


@pytest.mark.parametrize(
    ("issuer", "options", "word"),
    [
        ("http://id.example.org", {}, "https URL"),
        ("id.example.org", {}, "https URL"),
        ("https://id.example.org", {"page": "http://0.0.0.0:8765"}, "sends people back"),
        ("https://id.example.org", {"roles": ["lead"]}, "not lead"),
        ("https://id.example.org", {"roles": ["king"]}, "king"),
        ("https://id.example.org", {"client_id": ""}, "client id"),
    ],
)
def test_what_cannot_be_safe_is_refused_at_the_start(issuer, options, word):
    options = {"client_id": CLIENT, "page": "https://review.example.org", **options}
    with pytest.raises(ValueError, match=word):
        Provider(issuer, **options)


def test_the_parts_of_a_login_do_not_tell_its_secret(liar):
    provider = Provider(liar.issuer, CLIENT, page="http://127.0.0.1:1")
    begun = provider.begin()
    asked = dict(parse_qsl(urlsplit(begun.url).query))
    assert begun.secret not in begun.url and len({asked["state"], asked["nonce"], asked["code_challenge"]}) == 3
    assert provider.is_of(begun.secret, asked["state"]) and not provider.is_of("", asked["state"])
    with pytest.raises(LoginRefused, match="invalid_client"):  # a public client where a secret is asked for
        provider.finish(begun.secret, "x")


# --- the page ----------------------------------------------------------------------------------------------------


@pytest.fixture
def open_page(chromium, queue, honest):  # noqa: F811
    """Opens tabs at a queue whose provider is another site, as it is for a browser: localhost, not 127.0.0.1."""
    url, accounts = queue(honest)
    with ExitStack() as stack:

        def new(path="/"):
            context = chromium.new_context(viewport={"width": 1280, "height": 720})
            context.set_default_timeout(15_000)
            context.route("**://cdn.jsdelivr.net/**", lambda route: route.abort())  # the provider's style sheet
            stack.callback(context.close)
            return Page(context, url + path)

        new.accounts = accounts
        yield new


def log_in_elsewhere(page, name):
    page.tab.click("#login-elsewhere:visible")
    page.tab.fill("input[name=sub]", f"subject-of-{name}")
    page.tab.press("input[name=sub]", "Enter")


def test_somebody_logs_in_with_the_button_and_stays_logged_in(open_page):
    page = open_page()
    page.shows("login")
    page.tab.wait_for_selector("#login-elsewhere:visible")
    assert page.text("#login-elsewhere") == "Log in with localhost"
    log_in_elsewhere(page, "vera")
    page.shows("work")
    assert page.text("#who") == "vera" and page.tab.evaluate("location.href") == page.url
    page.tab.reload()
    page.shows("work")
    assert page.text("#who") == "vera"
    cookies = {cookie["name"]: cookie for cookie in page.context.cookies()}
    assert cookies[COOKIE]["sameSite"] == "Strict" and cookies[COOKIE]["httpOnly"] and FLOW_COOKIE not in cookies
    page.tab.click("#log-out")
    page.shows("login")
    assert page.problems == []


def test_an_answer_that_was_given_when_the_login_had_ended_is_there_after_the_next(open_page):
    page = open_page()
    log_in_elsewhere(page, "vera")
    page.shows("work")
    page.until(lambda: page.named() >= 0)
    open_page.accounts.revoke_tokens("vera")
    page.press("a")
    page.shows("login")
    log_in_elsewhere(page, "vera")
    page.shows("work")
    bearer = {"Authorization": f"Bearer {open_page.accounts.issue_token('lea')}"}

    def done():
        return httpx.get(f"{page.url}api/tickets?state=done", headers=bearer).json()

    page.until(lambda: [ticket["verdict"] for ticket in done()] == ["accept"])
    assert page.problems == []


def test_whoever_is_not_let_in_reads_why_and_may_still_use_a_password(open_page):
    page = open_page()
    page.shows("login")
    log_in_elsewhere(page, "stranger")
    page.shows("login")
    page.until(lambda: page.text("#login-error") == "there is no account stranger here: ask an admin to add it")
    assert page.tab.evaluate("location.href") == page.url  # a reload does not try the code again
    page.log_in("vera")
    page.shows("work")
    assert page.problems == []


def test_a_link_with_the_answer_to_somebody_elses_login_logs_nobody_in(open_page):
    page = open_page("/?state=mallory&code=hers")
    page.shows("login")
    page.until(lambda: "begun elsewhere" in page.text("#login-error"))
