"""Short forms in the published schema: what a mapping may be written as instead."""

from __future__ import annotations

from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Short:
    """A pydantic marker: the value of `key` alone, or one of `words`, stands for the mapping.

    Without a `key` only the words do.
    """

    def __init__(self, key: str | None = None, words: tuple[str, ...] = ()) -> None:
        self._key, self._words = key, words

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        whole = handler(schema)
        forms: list[dict[str, Any]] = [whole]
        if self._key is not None:
            own = handler.resolve_ref_schema(whole)["properties"][self._key]
            forms.insert(0, {key: value for key, value in own.items() if key != "title"})
        return {"oneOf": [*({"const": word} for word in self._words), *forms]}
