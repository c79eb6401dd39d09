"""A provider whose ID tokens a test chooses, and what a browser does at a provider."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from joserfc import jwt

from annotation_queue.api.asking import COOKIE

CLIENT, SECRET = "masklets", "a secret/with: signs"


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
        """Plays the browser at the provider. Returns the query of the redirect back to the queue."""
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


def agree(url, name):
    """Consents at the real provider as `name`. Returns the URL to which it sends the browser."""
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
    """The message of a rejected login. Checks that there is no session."""
    assert (answer.status_code, answer.json()["kind"]) == (status, kind), answer.text
    assert COOKIE not in answer.cookies
    return answer.json()["error"]
