"""Ontologies: the classes that people may give to objects, the attributes of a class, and guidelines with pictures.

A file, TOML or JSON, names them. `read` checks it once and takes everything with it that it refers to, so an ontology
is one value. Its version follows from its content. Does not know who chooses a label, or when.

    name = "Street scenes"
    guidelines = "guidelines.md"            # Markdown beside this file; its pictures lie beside it, too

    [[classes]]
    name = "dog"
    colour = "#e6194b"                      # optional, as key and guideline
    key = "1"
    guideline = "Also **puppies**, not wolves."
    attributes = [{ name = "pose", values = ["stands", "lies"], required = true }]

    instances = "numbered"                  # or "many", "one": see `Instances`

    [[attributes]]                          # of every class
    name = "occluded"
    kind = "boolean"                        # or "number", "text"; with values: "choice"
"""

from __future__ import annotations

import base64
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from storage.errors import first_line
from storage.masklet_rules import MAX_LABEL, attributes_problem
from storage.records import content_id
from storage.wording import counted

MAX_CLASSES = 1000
MAX_TEXT = 100_000  # characters of a Markdown text
MAX_PICTURES = 4 << 20  # bytes of all pictures
# Colours of classes that name none, in this order, again and again. Source: Sasha Trubetskoy, "20 distinct colors".
COLOURS = (
    *("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45"),
    *("#fabed4", "#469990", "#dcbeff", "#9a6324", "#fffac8", "#800000", "#aaffc3", "#808000", "#ffd8b1"),
)
_PICTURE = re.compile(r"!\[[^\]]*\]\(\s*<?([^)\s>]+)")
_MAGIC = {b"\x89PNG\r\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"RIFF": "image/webp"}
INSTANCE = "instance"  # the attribute with the number of an object among those of its class in the video, from 1
_STRICT = ConfigDict(extra="forbid")

# How many objects of a class a video may have. "many": any number. "numbered": any number, and each has its number in
# the attribute INSTANCE. "one": one on a frame, as the sky; after a shot cut, that is another masklet.
Instances = Literal["many", "numbered", "one"]


class OntologyError(ValueError):
    """This is not an ontology. The message is one line and names the file and the place in it."""


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """Something that is said about an object besides its class."""

    __pydantic_config__ = _STRICT

    name: str
    kind: Literal["choice", "boolean", "number", "text"] = "text"  # "choice" follows from values
    values: tuple[str, ...] = ()  # of a choice
    required: bool = False  # an answer needs it where its ticket asks for a label

    @property
    def example(self) -> str | bool | int:
        """A value of this attribute."""
        of_kind: dict[str, str | bool | int] = {"boolean": False, "number": 0, "text": "unknown"}
        return self.values[0] if self.values else of_kind[self.kind]

    def problem(self, value: object) -> str | None:
        """Why a value is not one of this attribute, in one line, or None."""
        if self.kind == "choice" and value not in self.values:
            return f"{self.name} is one of {', '.join(self.values)}, not {value!r:.80}"
        if self.kind == "boolean" and not isinstance(value, bool):
            return f"{self.name} is true or false, not {value!r:.80}"
        if self.kind == "number" and (isinstance(value, bool) or not isinstance(value, int | float)):
            return f"{self.name} is a number, not {value!r:.80}"
        if self.kind == "text" and not (isinstance(value, str) and value.strip()):
            return f"{self.name} is a text, not {value!r:.80}"
        return None


@dataclass(frozen=True, kw_only=True)
class ObjectClass:
    """A class of objects."""

    __pydantic_config__ = _STRICT

    name: str
    colour: str = ""  # #rrggbb
    key: str | None = None  # the key of the page that chooses it; the first classes without one get 1 to 9
    guideline: str = ""  # Markdown
    attributes: tuple[Attribute, ...] = ()  # besides those of every class
    # left out of the JSON if it is "many", so that the versions of before there were instances stay
    instances: Annotated[Instances, Field(exclude_if=lambda found: found == "many")] = "many"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of the guidelines."""

    media_type: str
    base64: str


@dataclass(frozen=True, kw_only=True)
class Ontology:
    """The classes of a project. Everything about them is in this value: no file is read again."""

    __pydantic_config__ = _STRICT

    name: str = ""
    guidelines: str = ""  # Markdown
    classes: tuple[ObjectClass, ...]
    attributes: tuple[Attribute, ...] = ()  # of every class
    pictures: Mapping[str, Picture] = field(default_factory=dict)  # by the address that the Markdown has

    @property
    def version(self) -> str:
        """The id of this content."""
        return content_id("ontology", self.to_json())

    def to_json(self) -> str:
        """The ontology as `from_json` reads it."""
        return _ONTOLOGY.dump_json(self).decode()

    def attributes_of(self, label: str) -> tuple[Attribute, ...]:
        """The attributes that an object of this class may have. Raises OntologyError for an unknown class."""
        found = self.class_of(label)
        if found is None:
            some = ", ".join(each.name for each in self.classes[:20])
            raise OntologyError(f"the label {label!r:.80} is not in the ontology: {some}")
        number = (Attribute(name=INSTANCE, kind="number"),) if found.instances == "numbered" else ()
        return (*number, *found.attributes, *self.attributes)

    def class_of(self, label: str | None) -> ObjectClass | None:
        """The class with this name, or None."""
        return next((each for each in self.classes if each.name == label), None)

    def problem(self, label: str | None, attributes: Mapping[str, object]) -> str | None:
        """Why nobody may say this of an object, in one line, or None. Attributes may be missing: see `missing`."""
        if label is None:
            return "attributes need a label" if attributes else None
        of, number = self.class_of(label), attributes.get(INSTANCE)
        if of is not None and of.instances == "numbered" and number is not None and not _is_count(number):
            return f"{INSTANCE} is a whole number from 1, not {number!r:.80}"
        try:
            known = {each.name: each for each in self.attributes_of(label)}
        except OntologyError as error:
            return str(error)
        for name, value in attributes.items():
            if name not in known:
                return f"{label} has no attribute {name!r:.80} in the ontology"
            if problem := known[name].problem(value):
                return problem
        return attributes_problem(json.dumps(dict(attributes)))

    def missing(self, label: str | None, attributes: Mapping[str, object]) -> str | None:
        """What a complete label of an object lacks, in one line, or None."""
        if label is None:
            return "a label"
        needed = [each.name for each in self.attributes_of(label) if each.required and each.name not in attributes]
        return f"the attribute {needed[0]}" if needed else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


_ONTOLOGY = TypeAdapter(Ontology)


def read(path: Path) -> Ontology:
    """The ontology of a file, TOML or JSON (.json), with its guidelines and pictures. Raises OntologyError."""
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise OntologyError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # also tomllib's and UTF-8's
        raise OntologyError(f"{path}: {first_line(error)}") from None
    if not isinstance(found, dict) or "pictures" in found:
        raise OntologyError(f"{path}: an ontology has the keys name, guidelines, classes and attributes")
    try:
        if isinstance(beside := found.get("guidelines"), str) and beside:
            found["guidelines"] = _beside(path, beside, "guidelines").read_text(encoding="utf-8")
        return _with_pictures(path, _filled(_checked(_validated(found))))
    except (OSError, UnicodeDecodeError) as error:
        raise OntologyError(f"{path}: {first_line(error)}") from None
    except OntologyError as error:
        raise OntologyError(f"{path}: {error}") from None


def from_json(text: str | bytes) -> Ontology:
    """The ontology that `to_json` wrote. Raises OntologyError."""
    try:
        return _checked(_ONTOLOGY.validate_json(text))
    except ValidationError as error:
        raise OntologyError(_line(error)) from None


def _validated(found: object) -> Ontology:
    try:
        return _ONTOLOGY.validate_python(found)
    except ValidationError as error:
        raise OntologyError(_line(error)) from None


def _line(error: ValidationError) -> str:
    """The first thing that is wrong: "classes, number 2, colour: …"."""
    first = error.errors()[0]
    place = ", ".join(f"number {part + 1}" if isinstance(part, int) else str(part) for part in first["loc"])
    return " ".join(f"{place}: {first['msg']}".split())


def _checked(found: Ontology) -> Ontology:
    """The ontology. Raises OntologyError for names, colours, keys and attributes that cannot be used."""
    if not 0 < len(found.classes) <= MAX_CLASSES:
        raise OntologyError(f"it has {counted(len(found.classes), 'class')}, not between 1 and {MAX_CLASSES}")
    _check_names("class", [each.name for each in found.classes])
    keys = [each.key for each in found.classes if each.key is not None]
    for each in found.classes:
        if each.colour and not re.fullmatch("#[0-9a-fA-F]{6}", each.colour):
            raise OntologyError(f"class {each.name}: the colour {each.colour!r:.40} is not like #e6194b")
        if each.key is not None and (len(each.key) != 1 or not each.key.isprintable() or each.key in "? 0"):
            raise OntologyError(f"class {each.name}: the key {each.key!r:.40} is not one character (and not ? or 0)")
        if each.key is not None and keys.count(each.key) > 1:
            raise OntologyError(f"class {each.name}: another class has the key {each.key} too")
        of_class = [of.name for of in (*each.attributes, *found.attributes)]
        _check_names(f"class {each.name}: attribute", [*of_class, *([INSTANCE] * (each.instances == "numbered"))])
    for of in [*found.attributes, *(of for each in found.classes for of in each.attributes)]:
        if (of.kind == "choice") != bool(of.values) and not (of.kind == "text" and of.values):
            raise OntologyError(f"attribute {of.name}: values belong to a choice, and a choice needs them")
        _check_names(f"attribute {of.name}: value", of.values)
    if max(map(len, _texts(found))) > MAX_TEXT:
        raise OntologyError(f"its guidelines have more than {MAX_TEXT} characters")
    _check_pictures(found.pictures)
    return found


def _check_pictures(pictures: Mapping[str, Picture]) -> None:
    """OntologyError unless these are pictures: a server sends them to browsers, under the type that they name."""
    size = 0
    for name, picture in pictures.items():
        try:
            size += len(base64.b64decode(picture.base64, validate=True))
        except ValueError:
            raise OntologyError(f"picture {name:.80}: its content is not base64") from None
        if picture.media_type not in _MAGIC.values():
            raise OntologyError(f"picture {name:.80}: the type {picture.media_type!r:.40} is not one of a picture")
    if size > MAX_PICTURES:
        raise OntologyError(f"all pictures together have more than {MAX_PICTURES >> 20} MiB")


def _check_names(what: str, names: Iterable[str]) -> None:
    seen = set[str]()
    for name in names:
        if not name.strip() or name != name.strip() or len(name) > MAX_LABEL or not name.isprintable():
            raise OntologyError(f"{what} {name!r:.80}: a name is one line of 1 to {MAX_LABEL} characters")
        if name in seen:
            raise OntologyError(f"{what} {name!r:.80} comes twice")
        seen.add(name)


def _filled(found: Ontology) -> Ontology:
    """With a colour for every class, a key for the first classes, and the kind of attributes that have values."""
    free = iter([key for key in "123456789" if key not in {each.key for each in found.classes}])

    def choices(attributes: Iterable[Attribute]) -> tuple[Attribute, ...]:
        return tuple(replace(each, kind="choice") if each.values else each for each in attributes)

    classes = tuple(
        replace(
            each,
            colour=each.colour.lower() or COLOURS[n % len(COLOURS)],
            key=each.key or next(free, None),
            attributes=choices(each.attributes),
        )
        for n, each in enumerate(found.classes)
    )
    return replace(found, classes=classes, attributes=choices(found.attributes))


def _texts(found: Ontology) -> list[str]:
    """All Markdown of an ontology."""
    return [found.guidelines, *(each.guideline for each in found.classes)]


def _with_pictures(path: Path, found: Ontology) -> Ontology:
    """The ontology with the pictures that its Markdown names. Raises OntologyError and OSError."""
    pictures = dict[str, Picture]()
    for address in dict.fromkeys(address for text in _texts(found) for address in _PICTURE.findall(text)):
        data = _beside(path, address, "picture").read_bytes()
        media_type = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)
        if media_type is None:
            raise OntologyError(f"picture {address}: not a PNG, JPEG, GIF or WebP file")
        pictures[address] = Picture(media_type=media_type, base64=base64.b64encode(data).decode())
    _check_pictures(pictures)
    return replace(found, pictures=pictures)


def _beside(path: Path, address: str, what: str) -> Path:
    """The file of a relative address beside the ontology or below. Raises OntologyError."""
    if "://" in address or PurePosixPath(address).is_absolute() or ".." in PurePosixPath(address).parts:
        raise OntologyError(f"{what} {address}: it must lie beside the ontology or in a folder there")
    file = path.parent / address
    if not file.is_file():
        raise OntologyError(f"{what} {address}: there is no such file")
    return file
