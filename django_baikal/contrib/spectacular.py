"""What drf-spectacular writes of ``IntrospectionAuthentication``; nothing has to be set for it.

An operation gets the scopes that its permissions ask for, and the answers 400, 401, 403 and 503.
``apps`` imports this module where drf-spectacular is installed. No schema needs the network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import reduce
from itertools import product
from typing import TYPE_CHECKING, Any

from drf_spectacular.drainage import set_override, warn
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.settings import spectacular_settings
from rest_framework.permissions import AND, OR, AllowAny, IsAuthenticated

from django_baikal.contrib.rest_framework.permissions import TokenPermission
from django_baikal.exceptions import ConfigurationError
from django_baikal.handler import clients
from django_baikal.protocol.bearer import Requirement
from django_baikal.protocol.metadata import openid_configuration_url

if TYPE_CHECKING:
    from drf_spectacular.openapi import AutoSchema

BODY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "detail": {"type": "string", "description": "A sentence for people."},
        "code": {
            "type": "string",
            "description": "`unauthorized` without a token, `temporarily_unavailable` for a 503, "
            "or the `error` of the challenge.",
        },
    },
    "required": ["detail"],
}
_CHALLENGE = {
    "WWW-Authenticate": {
        "description": "What is wrong or needed (RFC 6750 section 3, RFC 9470).",
        "schema": {"type": "string"},
    }
}
_WAIT = {
    "Retry-After": {
        "description": "When to try again, in seconds.",
        "schema": {"type": "integer", "minimum": 1},
    }
}


_SCHEMA: dict[str, Any] = {"$ref": "#/components/schemas/BearerError"}
#: What a view says of a request that it cannot read is not ours.
_OR_ANOTHER = {"anyOf": [_SCHEMA, {"type": "object", "additionalProperties": {}}]}


def _answer(description: str, headers: dict[str, Any], schema: Any = None) -> dict[str, Any]:
    content = {"application/json": {"schema": schema or _SCHEMA}}
    return {"description": description, "headers": headers, "content": content}


#: What a token may be answered: by the status, the name and the object of the component.
ANSWERS = {
    "400": (
        "BearerInvalidRequest",
        _answer("The request is wrong, or carries more than one token.", _CHALLENGE, _OR_ANOTHER),
    ),
    "401": (
        "BearerUnauthorized",
        _answer("There is no token, or one that is not good.", _CHALLENGE),
    ),
    "403": ("BearerForbidden", _answer("The token does not reach this far.", _CHALLENGE)),
    "503": ("BearerUnavailable", _answer("The token cannot be checked now.", _WAIT)),
}
#: These permissions refuse nobody who has a good token.
_OPEN = (AllowAny, IsAuthenticated)
_NOTHING: tuple[Requirement, ...] = (Requirement(),)


class Needs(dict[str, list[str]]):
    """A security requirement object, with what OpenAPI has no place for.

    ``forbids``: whether a good token may be too weak.
    """

    def __init__(self, name: str, requirement: Requirement, forbids: bool) -> None:
        super().__init__({name: [*dict.fromkeys(requirement.scopes)]})
        self.requirement, self.forbids = requirement, forbids


class IntrospectionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """The security scheme of ``IntrospectionAuthentication``: one for each alias."""

    target_class: Any = "django_baikal.contrib.rest_framework.IntrospectionAuthentication"
    match_subclasses = True

    def __init__(self, target: Any) -> None:
        super().__init__(target)  # type: ignore[no-untyped-call]
        # Several classes may have one alias, and its scheme; that is no mistake.
        set_override(type(target), "suppress_collision_warning", True)
        alias = "" if target.using == "default" else f"_{target.using}"
        self.name = re.sub(r"[^A-Za-z0-9._-]", "_", f"baikal{alias}")

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:  # noqa: ARG002
        """Name the authserver's metadata, which has all its URLs, without reading them."""
        hooks = spectacular_settings.POSTPROCESSING_HOOKS
        if complete not in hooks:
            # They run when all operations are written. A view may have a list of its own.
            hooks.append(complete)
        return {
            "type": "openIdConnect",
            "openIdConnectUrl": openid_configuration_url(clients[self.target.using].config),
            "description": "A bearer token (RFC 6750).",
        }

    def get_security_requirement(self, auto_schema: AutoSchema) -> Any:
        """Give what the permissions of the operation ask for, one object for each alternative."""
        permissions = auto_schema.view.get_permissions()
        forbids = any(_forbids(each) for each in permissions)
        asked = [_asked(each, auto_schema.view) for each in permissions]
        return [Needs(str(self.name), each, forbids) for each in reduce(_both, asked, _NOTHING)]


def _forbids(permission: Any) -> bool:
    if isinstance(permission, AND | OR):
        operands: Any = permission
        return _forbids(operands.op1) or _forbids(operands.op2)
    return not isinstance(permission, _OPEN)


def _asked(permission: Any, view: Any) -> tuple[Requirement, ...]:
    """Give the alternatives of what a permission asks of a token.

    Nothing can be said of "~", and of other permissions than ours.
    """
    if isinstance(permission, AND | OR):
        operands: Any = permission
        one, two = _asked(operands.op1, view), _asked(operands.op2, view)
        both = isinstance(permission, AND)
        return _both(one, two) if both else tuple(dict.fromkeys(one + two))
    if not isinstance(permission, TokenPermission):
        return _NOTHING
    try:
        found = permission.requirement(view.request, view)
    except ConfigurationError as error:
        warn(str(error))
        return _NOTHING
    return tuple(
        Requirement(found.scopes + scopes, found.purposes, acr=found.acr)
        for scopes in found.any_of or ((),)
    )


def _both(
    some: tuple[Requirement, ...], others: tuple[Requirement, ...]
) -> tuple[Requirement, ...]:
    return tuple(
        Requirement(one.scopes + two.scopes, one.purposes + two.purposes, acr=one.acr + two.acr)
        for one, two in product(some, others)
    )


def complete(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Add to each operation with a token how it may be answered, but for what its view declares.

    A hook for drf-spectacular. What else than scopes is asked of a token goes to the description.
    """
    used: set[str] = set()
    for operation in _operations(result):
        ours = [each for each in operation.get("security", ()) if isinstance(each, Needs)]
        if not ours:
            continue
        paragraphs = [operation.get("description", ""), *filter(None, map(_told, ours))]
        if any(paragraphs):
            operation["description"] = "\n\n".join(filter(None, paragraphs))
        for status, (name, _object) in ANSWERS.items():
            if status not in operation["responses"] and (status != "403" or ours[0].forbids):
                operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}
                used.add(status)
    if used:
        components = result.setdefault("components", {})
        components.setdefault("schemas", {}).setdefault("BearerError", BODY)
        components.setdefault("responses", {}).update(
            {name: made for status, (name, made) in ANSWERS.items() if status in used}
        )
    return result


def _operations(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in result["paths"].values():
        yield from (each for each in path.values() if isinstance(each, dict))


def _told(needs: Needs) -> str:
    """Say in a sentence what a token needs besides its scopes."""
    asked = needs.requirement
    wanted = []
    if asked.purposes:
        wanted.append(f"the purposes {_quoted(asked.purposes)}")
    if asked.acr:
        wanted.append(f"an authentication of the user that reaches acr {_quoted(asked.acr)}")
    scopes = f" with the scopes {_quoted(asked.scopes)}" if asked.scopes else ""
    return f"A token{scopes} needs {' and '.join(wanted)}." if wanted else ""


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in dict.fromkeys(names))
