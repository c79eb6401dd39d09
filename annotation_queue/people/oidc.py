"""Logging in through an OpenID Connect provider: the authorization code flow with PKCE, state and nonce.

Knows nothing about accounts, cookies or HTTP codes. A login in progress is one random secret, which the browser keeps.
State, nonce and code verifier are derived from it, so that one process of the queue can finish a login that another
process began. An ID token is trusted only after its signature, issuer, audience, time and nonce were checked.

Source: OpenID Connect Core 1.0 and Discovery 1.0, RFC 7636.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlsplit

import httpx
from cachetools import TTLCache, cachedmethod
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from annotation_queue.errors import LoginRefused, ProviderUnreachable
from annotation_queue.records import Role
from annotation_queue.rules import check_id

FLOW_S = 600.0  # how long a login at the provider may take
KNOWN_S = 300.0  # how long the provider's description is cached
PATIENCE_S = 10.0  # timeout of each request to the provider
AT_ONCE = 16  # requests to the provider at once: a hanging provider must not block every thread of the queue
LEEWAY_S = 60  # the largest accepted error of the provider's clock
# Only signatures with a private key; never "none" or a shared secret.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
LOOPBACK = ("localhost", "127.0.0.1", "::1")  # hosts that need no TLS
# The roles that a new person may get at their first login through a provider.
NEWCOMERS = frozenset({Role.ANNOTATOR, Role.VERIFIER})


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A login that was begun: the browser goes to `url` and keeps `secret`."""

    url: str
    secret: str


@dataclass(frozen=True, kw_only=True)
class Vouched:
    """The person whom the provider identified: the name of their account here, and their fixed id at the provider."""

    name: str
    issuer: str
    subject: str


@dataclass(frozen=True)
class _Flow:
    """The parts of a login in progress, derived from its secret. No part reveals the secret or another part."""

    state: str
    nonce: str
    verifier: str  # of PKCE

    @staticmethod
    def of(secret: str) -> _Flow:
        parts = (hmac.digest(secret.encode(), label, "sha256") for label in (b"state", b"nonce", b"verifier"))
        return _Flow(*(_base64(part) for part in parts))

    @property
    def challenge(self) -> str:
        return _base64(hashlib.sha256(self.verifier.encode()).digest())


class Provider:
    """One provider, described by its discovery document. Safe to share between threads."""

    def __init__(
        self,
        issuer: str,
        client_id: str,
        client_secret: str | None = None,
        *,
        page: str,
        name_claim: str = "preferred_username",
        roles: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """page: URL at which people reach the queue; the provider must know `page/` as a redirect URI.

        client_secret: None for a public client.
        name_claim: the claim with the name of the account. It must be unique at the provider, and people must not be
        able to change it. roles: of the account that a new person gets at their first login; empty: new people are
        rejected.
        Raises ValueError for a URL that is neither https nor on this machine, and for roles that only an admin gives.
        """
        self.roles = frozenset(Role(role) for role in roles)
        if more := self.roles - NEWCOMERS:
            raise ValueError(f"a new person may get {', '.join(sorted(NEWCOMERS))}, not {', '.join(sorted(more))}")
        if not client_id:
            raise ValueError(f"no client id is set for {issuer}")
        self._issuer = _checked(issuer, "an OIDC issuer")
        self._redirect_uri = _checked(page, "the page that an OIDC provider redirects people to").rstrip("/") + "/"
        self._client_id, self._client_secret = client_id, client_secret
        self._name_claim, self._clock = name_claim, clock
        self._tls = httpx.create_ssl_context()  # once: loading the certificates is slow
        self._asking = threading.BoundedSemaphore(AT_ONCE)
        self._descriptions: TTLCache[Any, dict[str, Any]] = TTLCache(1, KNOWN_S, clock)
        self._lock = threading.Lock()

    @property
    def host(self) -> str:
        """The provider's name for people."""
        return urlsplit(self._issuer).hostname or self._issuer

    def begin(self) -> Begun:
        """Begin a login. Raises ProviderUnreachable."""
        secret = secrets.token_urlsafe(32)
        flow = _Flow.of(secret)
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect_uri,
            "scope": "openid profile email" if self._name_claim == "email" else "openid profile",
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": flow.challenge,
            "code_challenge_method": "S256",
        }
        url = httpx.URL(self._endpoint("authorization_endpoint")).copy_merge_params(asked)
        return Begun(url=str(url), secret=secret)

    def is_of(self, secret: str, state: str) -> bool:
        """Whether an answer with this state belongs to the login of this secret."""
        return bool(secret) and hmac.compare_digest(_Flow.of(secret).state.encode(), state.encode())

    def finish(self, secret: str, code: str) -> Vouched:
        """The person behind the provider's code. Raises LoginRefused, ProviderUnreachable."""
        flow = _Flow.of(secret)
        tokens = self._redeem(code, flow.verifier)
        claims = self._verified(tokens.get("id_token"), flow.nonce)
        if self._name_claim not in claims and "userinfo_endpoint" in self._description():
            bearer = {"Authorization": f"Bearer {tokens.get('access_token')}"}
            more = self._ask("GET", self._endpoint("userinfo_endpoint"), headers=bearer)
            if more.get("sub") == claims["sub"]:
                claims = {**more, **claims}
        return Vouched(name=self._name(claims), issuer=self._issuer, subject=claims["sub"])

    # --- inside ------------------------------------------------------------------------------------------------

    def _redeem(self, code: str, verifier: str) -> dict[str, Any]:
        """Exchange a code for tokens."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": verifier,
        }
        methods = self._description().get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        auth = None
        if self._client_secret is None:
            form["client_id"] = self._client_id
        elif "client_secret_basic" in methods or "client_secret_post" not in methods:
            auth = httpx.BasicAuth(quote_plus(self._client_id), quote_plus(self._client_secret))
        else:
            form |= {"client_id": self._client_id, "client_secret": self._client_secret}
        return self._ask("POST", self._endpoint("token_endpoint"), data=form, auth=auth)

    def _verified(self, id_token: object, nonce: str) -> dict[str, Any]:
        """The claims of an ID token, after checking that it is valid and for this client and this login."""
        keys = self._ask("GET", self._endpoint("jwks_uri"))  # not cached: the provider may change its keys
        try:
            # the keys are JSON of a provider: the library checks them
            token = jwt.decode(str(id_token), KeySet.import_key_set(keys), algorithms=ALGORITHMS)  # type: ignore[arg-type]
            wanted = jwt.JWTClaimsRegistry(
                now=int(self._clock()),
                leeway=LEEWAY_S,
                iss={"essential": True, "value": self._issuer},
                aud={"essential": True, "value": self._client_id},
                sub={"essential": True},
                exp={"essential": True},
                iat={"essential": True},
                nonce={"essential": True, "value": nonce},
            )
            wanted.validate(token.claims)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise LoginRefused(f"{self.host} sent an invalid ID token: {error or 'malformed'}") from error
        only = not isinstance(token.claims["aud"], list) or len(token.claims["aud"]) == 1
        if token.claims.get("azp", self._client_id if only else None) != self._client_id:
            raise LoginRefused(f"{self.host} sent an ID token that was issued to another program")
        return token.claims

    def _name(self, claims: dict[str, Any]) -> str:
        name = claims.get(self._name_claim)
        if not isinstance(name, str):
            raise LoginRefused(f"{self.host} did not send your name: there is no claim {self._name_claim}")
        if self._name_claim == "email" and claims.get("email_verified") is not True:
            raise LoginRefused(f"{self.host} has not verified the address {name}")
        try:
            return check_id(name, "name")
        except ValueError as error:
            raise LoginRefused(f"{self.host} sent an invalid name: {name!r}") from error

    def _endpoint(self, name: str) -> str:
        try:
            return _checked(self._description()[name], name)
        except (KeyError, ValueError) as error:
            raise ProviderUnreachable(f"{self.host} has no usable {name}") from error

    @cachedmethod(lambda self: self._descriptions, lock=lambda self: self._lock)
    def _description(self) -> dict[str, Any]:
        """The provider's discovery document, cached for KNOWN_S."""
        description = self._ask("GET", self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        if (issuer := description.get("issuer")) != self._issuer:
            raise ProviderUnreachable(f"{self._issuer} names itself {issuer}: set the issuer to that name")
        return description

    def _ask(self, method: str, url: str, **sent: Any) -> dict[str, Any]:
        """A JSON object from the provider. Redirects are not followed."""
        if not self._asking.acquire(blocking=False):
            raise ProviderUnreachable(f"too many requests to {self.host} at once; try again")
        try:
            with httpx.Client(timeout=PATIENCE_S, verify=self._tls, headers={"Accept": "application/json"}) as http:
                response = http.request(method, url, **sent)
            answer = response.json()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProviderUnreachable(f"{self.host} does not answer; try again, or log in by password") from error
        except ValueError as error:
            raise ProviderUnreachable(f"{self.host} answered {response.status_code} without JSON") from error
        finally:
            self._asking.release()
        if 400 <= response.status_code < 500 and isinstance(answer, dict) and "error" in answer:
            raise LoginRefused(f"{self.host} refused this login: {answer['error']}")
        if not response.is_success or not isinstance(answer, dict):
            raise ProviderUnreachable(f"{self.host} answered {response.status_code}, which is no valid answer")
        return answer


def _checked(url: str, what: str) -> str:
    """Return `url` if it is https or on this machine. Raises ValueError otherwise."""
    parts = urlsplit(url)
    if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)):
        return url
    raise ValueError(f"{what} must be an https URL, not {url!r}")


def _base64(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
