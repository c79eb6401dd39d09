"""What the queue checks of an OpenID Connect provider that is wrong, hostile or unreachable."""

from __future__ import annotations

import time
from urllib.parse import parse_qsl, urlsplit

import pytest
from joserfc.jwk import ECKey, RSAKey

from annotation_queue.errors import LoginRefused, ProviderUnreachable
from annotation_queue.people.attempts import FREE
from annotation_queue.people.oidc import AT_ONCE, KNOWN_S, LEEWAY_S, Provider
from tests.annotation_queue.people.providers import CLIENT, SECRET, begin, finish, refusal
from tests.annotation_queue.synthetic_queue import PASSWORD


def test_a_valid_id_token_is_accepted(liar, queue, browser):
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
        ({"preferred_username": "../ann"}, "invalid name"),
        ({"preferred_username": "a\nb"}, "invalid name"),
    ],
)
def test_an_id_token_with_wrong_claims_is_rejected(liar, queue, browser, claims, word):
    url, _ = queue(liar.issuer, roles=["annotator"])
    liar.claims = claims
    http = browser(url)
    said = refusal(finish(http, liar.authorize(begin(http))))
    assert word in said and "\n" not in said
    assert http.get("/api/me").status_code == 401


def test_an_id_token_with_another_signature_is_rejected(liar, queue, browser):
    url, _ = queue(liar.issuer)
    http = browser(url)
    other, elliptic = RSAKey.generate_key(2048), ECKey.generate_key("P-256")
    for signs, header in (
        (other, {"alg": "RS256", "kid": "one"}),
        (liar.key, {"alg": "RS256", "kid": "two"}),
        (None, {"alg": "HS256", "kid": "one"}),  # the public key used as a shared secret
        (None, {"alg": "none", "kid": "one"}),
        (elliptic, {"alg": "ES256", "kid": "one"}),
    ):
        liar.signs, liar.header = signs, header
        assert "invalid ID token" in refusal(finish(http, liar.authorize(begin(http))))


def test_a_code_of_another_login_is_rejected(liar, queue, browser):
    url, _ = queue(liar.issuer)
    http, other = browser(url), browser(url)
    stolen = liar.authorize(begin(other))["code"]
    state = liar.authorize(begin(http))["state"]
    assert "invalid_grant" in refusal(finish(http, {"state": state, "code": stolen}))


def test_the_name_may_come_from_the_userinfo_of_the_same_subject(liar, queue, browser):
    url, _ = queue(liar.issuer)
    http = browser(url)
    liar.claims = {"preferred_username": None}
    liar.userinfo = {"sub": "somebody else", "preferred_username": "vera"}
    assert "no claim preferred_username" in refusal(finish(http, liar.authorize(begin(http))))
    liar.userinfo = {"sub": "s", "preferred_username": "ann"}
    assert finish(http, liar.authorize(begin(http))).json()["name"] == "ann"


def test_an_email_address_is_a_name_only_if_it_is_verified(liar, queue, browser):
    url, _ = queue(liar.issuer, name_claim="email", roles=["verifier"])
    http = browser(url)
    liar.claims = {"email": "new@example.org"}
    for verified in (None, False, "true"):
        liar.claims["email_verified"] = verified
        assert "has not verified" in refusal(finish(http, liar.authorize(begin(http))))
    liar.claims["email_verified"] = True
    assert finish(http, liar.authorize(begin(http))).json()["name"] == "new@example.org"


def test_failed_codes_are_limited_like_failed_passwords(liar, queue, browser):
    url, _ = queue(liar.issuer)
    http = browser(url)
    state = dict(parse_qsl(urlsplit(begin(http)).query))["state"]
    for _ in range(3 * FREE):  # not counted: the queue rejects an unknown state without the provider
        refusal(finish(http, {"state": "x", "code": "x"}))
    for _ in range(FREE):
        refusal(finish(http, {"state": state, "code": "guessed"}))
    assert "wait" in refusal(finish(http, liar.authorize(begin(http))), 429, "TooManyLogins")


@pytest.mark.parametrize(
    ("description", "word"),
    [
        ({"issuer": "https://another.example.org"}, "names itself https://another.example.org"),
        ({"authorization_endpoint": "http://another.example.org/a"}, "no usable authorization_endpoint"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "no usable authorization_endpoint"),
    ],
)
def test_an_unsafe_discovery_document_is_rejected(liar, queue, browser, description, word):
    url, _ = queue(liar.issuer)
    liar.description = description
    assert word in refusal(browser(url).post("/api/login/oidc"), 424, "ProviderUnreachable")


def test_a_stale_discovery_document_is_fetched_again(liar, clock):
    provider = Provider(liar.issuer, CLIENT, SECRET, page="http://127.0.0.1:1", clock=clock)
    for _ in range(3):
        provider.begin()
    clock.advance(KNOWN_S)
    provider.begin()
    assert liar.requests == ["description"] * 2


def test_password_login_works_while_the_provider_is_unreachable(queue, browser):
    url, _ = queue("http://127.0.0.1:9")
    http = browser(url)
    said = refusal(http.post("/api/login/oidc"), 424, "ProviderUnreachable")
    assert said == "127.0.0.1 does not answer; try again, or log in by password"
    assert http.post("/api/login", json={"name": "ann", "password": PASSWORD}).status_code == 200


def test_a_hanging_provider_blocks_only_a_limited_number_of_threads():
    provider = Provider("http://127.0.0.1:9", CLIENT, page="http://127.0.0.1:1")
    for _ in range(AT_ONCE):
        provider._asking.acquire()
    with pytest.raises(ProviderUnreachable, match="too many requests"):
        provider.begin()
    provider._asking.release()
    with pytest.raises(ProviderUnreachable, match="does not answer"):
        provider.begin()


@pytest.mark.parametrize(
    ("issuer", "options", "word"),
    [
        ("http://id.example.org", {}, "https URL"),
        ("id.example.org", {}, "https URL"),
        ("https://id.example.org", {"page": "http://0.0.0.0:8765"}, "redirects people"),
        ("https://id.example.org", {"roles": ["lead"]}, "not lead"),
        ("https://id.example.org", {"roles": ["king"]}, "king"),
        ("https://id.example.org", {"client_id": ""}, "client id"),
    ],
)
def test_unsafe_provider_settings_are_rejected(issuer, options, word):
    options = {"client_id": CLIENT, "page": "https://review.example.org", **options}
    with pytest.raises(ValueError, match=word):
        Provider(issuer, **options)


def test_the_url_of_a_login_does_not_reveal_its_secret(liar):
    provider = Provider(liar.issuer, CLIENT, page="http://127.0.0.1:1")
    begun = provider.begin()
    asked = dict(parse_qsl(urlsplit(begun.url).query))
    assert begun.secret not in begun.url and len({asked["state"], asked["nonce"], asked["code_challenge"]}) == 3
    assert provider.is_of(begun.secret, asked["state"]) and not provider.is_of("", asked["state"])
    with pytest.raises(LoginRefused, match="invalid_client"):  # a public client at a provider that needs a secret
        provider.finish(begun.secret, "x")
