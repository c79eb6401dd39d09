"""People and their tokens, managed by leads and admins."""

from __future__ import annotations

import httpx

from annotation_queue.people.accounts import token_id_of
from annotation_queue.records import Role, Scope
from tests.annotation_queue.synthetic_queue import PASSWORD


def test_leads_manage_people_but_not_admins(queue):
    queue.accounts.add("boss", [Role.ADMIN])
    with queue.client("lea") as lea, queue.client("boss") as boss, queue.client("vera") as vera:
        http, post = lea._http, lea._http.post
        assert vera._http.get("/api/people").status_code == 403
        ned = {"name": "ned", "roles": ["verifier"], "skills": ["birds"]}
        account = post("/api/people", json=ned).json()
        assert (account["roles"], account["skills"], account["tokens"]) == (["verifier"], ["birds"], [])
        for body in ({"name": "ned", "roles": ["admin"]}, {"name": "boss", "roles": ["verifier"]}):
            assert post("/api/people", json=body).status_code == 403
        assert post("/api/people/boss/disable", json={}).status_code == 403
        assert post("/api/people/boss/tokens", json={}).status_code == 403
        assert boss._http.post("/api/people", json={"name": "eve", "roles": ["admin"]}).status_code == 200
        assert post("/api/people/ned/tokens", json={}).status_code == 403, "lea would act as ned"
        token = queue.accounts.issue_token("ned", [Scope.READ], expires_s=3600)
        token_id = token_id_of(token)
        listed = next(a for a in http.get("/api/people").json() if a["name"] == "ned")
        assert [t["token_id"] for t in listed["tokens"]] == [token_id]
        bearer = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{queue.url}/api/me", headers=bearer).json()["skills"] == ["birds"]
        assert http.delete(f"/api/people/ned/tokens/{token_id}").status_code == 204
        assert httpx.get(f"{queue.url}/api/me", headers=bearer).status_code == 401
        assert http.delete(f"/api/people/ned/tokens/{token_id}").status_code == 422
        queue.accounts.add("ned", [Role.VERIFIER], PASSWORD)
        login = {"name": "ned", "password": PASSWORD}
        cookie = httpx.post(f"{queue.url}/api/login", json=login).cookies
        assert post("/api/people/ned/disable", json={}).status_code == 204
        assert httpx.get(f"{queue.url}/api/me", cookies=cookie).status_code == 401
        assert httpx.post(f"{queue.url}/api/login", json=login).status_code == 401
        assert post("/api/people/ned/disable", json={"disabled": False}).status_code == 204
        assert httpx.post(f"{queue.url}/api/login", json=login).status_code == 200
        audit = [(line["actor"], line["action"]) for line in http.get("/api/audit").json() if line["subject"] == "ned"]
        failed, logged_in = ("(nobody)", "fail to log in"), ("ned", "log in")
        before = [
            ("(operator)", "set person"),
            ("lea", "revoke token"),
            ("(operator)", "issue token"),
            ("lea", "set person"),
        ]
        assert audit == [logged_in, ("lea", "enable"), failed, ("lea", "disable"), logged_in, *before]
        assert PASSWORD not in http.get("/api/audit").text and token not in http.get("/api/audit").text


def test_nobody_sets_the_password_of_another_person(queue):
    queue.accounts.add("boss", [Role.ADMIN])
    login = {"name": "vera", "password": PASSWORD}
    cookie = httpx.post(f"{queue.url}/api/login", json=login).cookies
    for who in ("lea", "boss"):
        with queue.client(who) as manager:
            for name in ("vera", "new"):
                person = {"name": name, "roles": ["verifier"], "password": "known to the lead"}
                answer = manager._http.post("/api/people", json=person)
                assert (answer.status_code, answer.json()["kind"]) == (403, "NotAllowed")
                taken = httpx.post(f"{queue.url}/api/login", json={"name": name, "password": "known to the lead"})
                assert taken.status_code == 401
    assert httpx.get(f"{queue.url}/api/me", cookies=cookie).status_code == 200, "the person's logins end"
    assert httpx.post(f"{queue.url}/api/login", json=login).status_code == 200
    with queue.client("lea") as lea:
        mine = {"name": "lea", "roles": ["lead"], "password": "my own new password"}
        assert lea._http.post("/api/people", json=mine).status_code == 200
    assert httpx.post(f"{queue.url}/api/login", json=mine).status_code == 200


def test_a_lead_issues_a_token_for_a_program_of_their_own(queue):
    with queue.client("lea") as lea:
        issued = lea._http.post("/api/people/lea/tokens", json={"scopes": ["read"], "expires_s": 3600}).json()
        bearer = {"Authorization": f"Bearer {issued['token']}"}
        assert httpx.get(f"{queue.url}/api/me", headers=bearer).json()["name"] == "lea"
        line = lea._http.get("/api/audit?limit=1").json()[0]
        assert (line["actor"], line["action"], line["subject"]) == ("lea", "issue token", "lea")


def test_no_admin_changes_the_account_of_the_pipeline(queue):
    queue.accounts.add("boss", [Role.ADMIN])
    with queue.client("boss") as boss, queue.client("pipeline") as pipeline:
        for body in (
            {"roles": ["annotator"]},
            {"roles": ["pipeline", "admin"]},
            {"roles": ["pipeline"], "password": PASSWORD},
        ):
            assert boss._http.post("/api/people", json={"name": "pipeline", **body}).status_code == 403
        assert boss._http.post("/api/people/pipeline/disable", json={}).status_code == 403
        assert pipeline._http.get("/api/me").json()["roles"] == ["pipeline"]


def test_adding_a_new_person_never_replaces_the_roles_of_another(queue):
    lead = {"Authorization": f"Bearer {queue.accounts.issue_token('lea')}"}
    add = {"name": "nina", "roles": ["verifier"], "skills": ["thin"], "new": True}
    assert httpx.post(f"{queue.url}/api/people", headers=lead, json=add).status_code == 200
    refused = httpx.post(f"{queue.url}/api/people", headers=lead, json=add | {"roles": ["annotator"]})
    assert refused.status_code == 422 and "already a person nina, with the roles verifier" in refused.json()["error"]
    change = {"name": "nina", "roles": ["annotator"]}
    changed = httpx.post(f"{queue.url}/api/people", headers=lead, json=change).json()
    assert (changed["roles"], changed["skills"]) == (["annotator"], ["thin"])
