"""Projects: which people belong to which, and so whose tickets they get and see.

A project is a name that batches have. The unnamed project "" has the batches that no project owns, and everybody
belongs to it. Admins and the pipeline belong to every project. Pure: the settings say who belongs where.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from annotation_queue.errors import NotAllowed
from annotation_queue.records import Person, Role

_OF_ALL = frozenset({Role.ADMIN, Role.PIPELINE})


@dataclass(frozen=True)
class Projects:
    """The projects of an installation; without any, everybody gets and sees every ticket."""

    members: Mapping[str, frozenset[str]] = field(default_factory=dict)  # by project; none: everybody

    def of(self, person: Person) -> Person:
        """The person with the projects that they belong to."""
        if not self.members or person.roles & _OF_ALL:
            return person
        mine = {name for name, members in self.members.items() if not members or person.name in members}
        return replace(person, projects=frozenset({"", *mine}))

    def names_of(self, person: Person) -> tuple[str, ...]:
        """The names of the projects that a person belongs to, sorted, without the unnamed one."""
        return tuple(sorted(name for name in self.members if person.projects is None or name in person.projects))


def check_may_manage(by: Person, other: Person) -> None:
    """Raises NotAllowed if a lead would manage a person who belongs to a project that the lead does not belong to.

    Otherwise, leads could add a person of another project's list, and see that project through them.
    """
    if by.projects is not None and (other.projects is None or not other.projects <= by.projects):
        raise NotAllowed(f"{by.name} may not manage {other.name}, who belongs to another project: only an admin may")


def knows(who: Person, other: Person) -> bool:
    """Whether a lead may know of a person: one who shares a project with the lead, or belongs to none with a name."""
    if who.projects is None or other.projects is None:
        return True
    named = other.projects - {""}
    return not named or bool(named & who.projects)


def within(who: Person, project: str | None) -> Person:
    """The person with one of their projects alone; None leaves them all. Raises NotAllowed for another project."""
    if project is None:
        return who
    if who.projects is not None and project not in who.projects:
        raise NotAllowed(f"{who.name} does not belong to the project {project!r:.60}")
    return replace(who, projects=frozenset({project}))
