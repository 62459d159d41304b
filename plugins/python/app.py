"""Blanks the fields that the configuration names and adds ``schema_version``; sends an event to the
endpoint that a field of its payload names.

Configuration of the transformer: ``fields``, names separated by commas, blanked at any depth;
``schema_version``, "1" if absent. Of the resolver: ``field``, the path of a field
(``customer.region``); ``map.VALUE``, the endpoint for one value of it, which is itself the endpoint's
id where there is no such entry; ``default``, the endpoint where the field is absent. Without
``field``, or when there is nothing to choose by, an event goes to the endpoints that subscribe to it.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.resolve import Choice_Registered, Mode, Resolution
from wit_world.exports.transform import Verdict, Verdict_Deliver
from wit_world.imports import config
from wit_world.imports.types import Endpoint, Event, Failure, Request

BLANK = "[redacted]"


class Transform(exports.Transform):
    def transform(self, event: Event, endpoint: Endpoint) -> Verdict:
        names = (name.strip() for name in (config.get("fields") or "").split(","))
        fields = frozenset(name for name in names if name)
        payload = blanked(parse(event.payload), fields)
        if isinstance(payload, dict):
            payload["schema_version"] = config.get("schema_version") or "1"
        try:
            body = write(payload).encode()
        except UnicodeEncodeError:
            raise not_json() from None
        return Verdict_Deliver(Request(body=body, content_type=None, headers=[]))


class Resolve(exports.Resolve):
    def resolve(self, event: Event, subscribed: list[Endpoint]) -> Resolution:
        field = config.get("field")
        if field is None:
            return Resolution(Mode.ADD, [])
        value = find(parse(event.payload), field.split("."))
        chosen = config.get("default") if value is None else config.get(f"map.{value}") or value
        if chosen is None:
            return Resolution(Mode.ADD, [])
        return Resolution(Mode.REPLACE, [Choice_Registered(chosen)])


class Number(str):
    """A number as it was written: 1.00 stays 1.00."""


def parse(payload: bytes) -> object:
    try:
        return json.loads(
            payload.decode(), parse_int=Number, parse_float=Number, parse_constant=refuse
        )
    except (ValueError, RecursionError):
        raise not_json() from None


def refuse(word: str) -> object:
    raise ValueError(word)


def blanked(value: object, fields: frozenset[str]) -> object:
    """The value with a blank in place of every field in ``fields``, wherever it is."""
    if isinstance(value, dict):
        return {
            name: BLANK if name in fields else blanked(inner, fields)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [blanked(inner, fields) for inner in value]
    return value


def write(value: object) -> str:
    """The value as JSON."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{text(name)}:{write(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(write, value)) + "]"
    return str(value) if isinstance(value, Number) else text(value)


def text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def find(payload: object, path: list[str]) -> str | None:
    """The text at a path into the payload."""
    value = payload
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, str) and not isinstance(value, Number) else None


def not_json() -> Err:
    return Err(Failure(retryable=False, message="the payload is not JSON"))
