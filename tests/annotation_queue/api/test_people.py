"""People and their tokens, managed by leads and admins."""

from __future__ import annotations

import httpx

from annotation_queue.records import Role
from tests.annotation_queue.synthetic_queue import PASSWORD


def test_leads_manage_people_but_not_admins(queue):
    queue.accounts.add("boss", [Role.ADMIN])
    with queue.client("lea") as lea, queue.client("boss") as boss, queue.client("vera") as vera:
        http, post = lea._http, lea._http.post
        assert vera._http.get("/api/people").status_code == 403
        ned = {"name": "ned", "roles": ["verifier"], "skills": ["birds"], "password": PASSWORD}
        account = post("/api/people", json=ned).json()
        assert (account["roles"], account["skills"], account["tokens"]) == (["verifier"], ["birds"], [])
        for body in ({"name": "ned", "roles": ["admin"]}, {"name": "boss", "roles": ["verifier"]}):
            assert post("/api/people", json=body).status_code == 403
        assert post("/api/people/boss/disable", json={}).status_code == 403
        assert post("/api/people/boss/tokens", json={}).status_code == 403
        assert boss._http.post("/api/people", json={"name": "eve", "roles": ["admin"]}).status_code == 200
        issued = post("/api/people/ned/tokens", json={"scopes": ["read"], "expires_s": 3600}).json()
        listed = next(a for a in http.get("/api/people").json() if a["name"] == "ned")
        assert [t["token_id"] for t in listed["tokens"]] == [issued["token_id"]]
        bearer = {"Authorization": f"Bearer {issued['token']}"}
        assert httpx.get(f"{queue.url}/api/me", headers=bearer).json()["skills"] == ["birds"]
        assert http.delete(f"/api/people/ned/tokens/{issued['token_id']}").status_code == 204
        assert httpx.get(f"{queue.url}/api/me", headers=bearer).status_code == 401
        assert http.delete(f"/api/people/ned/tokens/{issued['token_id']}").status_code == 422
        login = {"name": "ned", "password": PASSWORD}
        cookie = httpx.post(f"{queue.url}/api/login", json=login).cookies
        assert post("/api/people/ned/disable", json={}).status_code == 204
        assert httpx.get(f"{queue.url}/api/me", cookies=cookie).status_code == 401
        assert httpx.post(f"{queue.url}/api/login", json=login).status_code == 401
        assert post("/api/people/ned/disable", json={"disabled": False}).status_code == 204
        assert httpx.post(f"{queue.url}/api/login", json=login).status_code == 200
        audit = [(line["actor"], line["action"]) for line in http.get("/api/audit").json() if line["subject"] == "ned"]
        by_lea = [("lea", action) for action in ("disable", "revoke token", "issue token", "set person")]
        failed, logged_in = ("(nobody)", "fail to log in"), ("ned", "log in")
        assert audit == [logged_in, ("lea", "enable"), failed, by_lea[0], logged_in, *by_lea[1:]]
        assert PASSWORD not in http.get("/api/audit").text and issued["token"] not in http.get("/api/audit").text
