"""The settings of notices: who is told about what."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from engine.settings_section import Section

EventName = Literal[
    "batch.drained", "release.published", "round.promoted", "round.refused", "round.waits", "ticket.waits"
]


class _EndpointSettings(Section):
    """Who receives notices. An address may contain a password or a key, so it is a secret."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,40}$")  # for logs and `masklets notices`; keep it if the URL changes
    url: SecretStr
    events: tuple[EventName, ...] = ()  # those that it receives; none: all
    projects: tuple[str, ...] = ()  # it receives only what is about these; none: everything


class WebhookSettings(_EndpointSettings):
    """A program that receives notices by HTTP, signed as Standard Webhooks describes."""

    secret: SecretStr  # whsec_ and base64 of 24 to 64 random bytes; the receiver has it, too


class AppriseSettings(_EndpointSettings):
    """People who receive notices by e-mail or chat. `url` is one of Apprise's (needs `masklet-engine[notices]`)."""


class NoticeSettings(Section):
    """Who is told about what happens. `masklets notices` lists what was not received."""

    webhooks: tuple[WebhookSettings, ...] = ()
    apprise: tuple[AppriseSettings, ...] = ()
    ticket_waits_h: float = Field(24.0, ge=0)  # hours that a ticket may be open before somebody is told; 0: for ever

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [endpoint.name for endpoint in (*self.webhooks, *self.apprise)]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two endpoints have the name {min(twice)}")
        return self
