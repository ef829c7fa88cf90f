"""One request to the registry, ready for a handler."""

from typing import Any
from urllib.parse import unquote

from starlette.requests import Request

from tailrace.registry.errors import RegistryError, RegistryErrorCode
from tailrace.registry.subjects import number

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"

Body = dict[str, Any]


class Call:
    """Path parameters, query switches and the JSON body, ready to use in a thread."""

    def __init__(self, request: Request) -> None:
        self.body: Body = {}
        self._path = request.path_params
        self._query = request.query_params

    def path(self, name: str) -> str:
        """A path parameter, percent-decoded."""
        return unquote(str(self._path[name]))

    @property
    def subject(self) -> str:
        """The subject in the path."""
        return self.path("subject")

    @property
    def own_subject(self) -> str | None:
        """The subject in the path, None for a global route."""
        return self.subject if "subject" in self._path else None

    @property
    def schema_id(self) -> int:
        """The global id in the path."""
        text = self.path("id")
        found = number(text)
        if found is None:
            raise RegistryError(RegistryErrorCode.SCHEMA_NOT_FOUND, f"Schema {text} not found")
        return found

    def switch(self, name: str) -> bool:
        """A boolean query parameter, false when absent."""
        return self._query.get(name, "false").lower() == "true"

    def text(self, name: str, default: str = "") -> str:
        """A query parameter."""
        return self._query.get(name, default)

    def page(self, items: list[Any]) -> list[Any]:
        """The part of a list that `offset` and `limit` ask for."""
        try:
            offset, limit = int(self.text("offset", "0")), int(self.text("limit", "-1"))
        except ValueError:
            raise RegistryError(
                RegistryErrorCode.INVALID_VERSION, "offset and limit must be numbers"
            ) from None
        return items[offset:] if limit < 0 else items[offset : offset + limit]

    @property
    def schema(self) -> str:
        """The schema of the body; only Avro without references is known here."""
        if self.body.get("schemaType", "AVRO") != "AVRO":
            raise RegistryError(
                RegistryErrorCode.INVALID_SCHEMA,
                f"Invalid schema type {self.body['schemaType']}: only AVRO is served",
            )
        if self.body.get("references"):
            raise RegistryError(RegistryErrorCode.INVALID_SCHEMA, "Invalid schema: references are not served")
        schema = self.body.get("schema")
        if not isinstance(schema, str) or not schema.strip():
            raise RegistryError(RegistryErrorCode.INVALID_SCHEMA, "Invalid schema: empty")
        return schema
