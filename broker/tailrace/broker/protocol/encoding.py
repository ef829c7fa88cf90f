"""Writes the source of one encoder: `encode(m, w, parts)`, w the bytearray to append to."""

import struct
from functools import cache
from typing import TypeVar

from tailrace.broker.protocol.fields import FieldSpec, wire_fields
from tailrace.broker.protocol.source import NUMBERS, Source, item_of

_Message = TypeVar("_Message")

BY_REFERENCE = 1024
"""Shorter record batches are cheaper to copy than to hand to the kernel as a piece of their own."""


class EncoderWriter:
    def __init__(self, source: Source, version: int, flexible: bool) -> None:
        self._source = source
        self._version = version
        self._flexible = flexible

    def message(self, cls: type, value: str, out: str, depth: int) -> None:
        """Write the encoding of the message that `value` names, into the bytearray that `out` names."""
        indent = "    " * depth
        run: list[tuple[str, str]] = []
        tagged: list[FieldSpec] = []
        for spec in wire_fields(cls):
            if self._version not in spec.versions:
                continue
            if spec.tag is not None:
                tagged.append(spec)
            elif spec.item in NUMBERS and not spec.is_array:
                run.append((f"{value}.{spec.name}", NUMBERS[str(spec.item)][0]))
            else:
                self._run(run, out, indent)
                self._value(spec, f"{value}.{spec.name}", out, depth)
        self._run(run, out, indent)
        if self._flexible:
            self._tags(tagged, value, out, depth)

    def _run(self, run: list[tuple[str, str]], out: str, indent: str) -> None:
        if not run:
            return
        layout = self._source.packed("".join(code for _, code in run))
        self._source.line(f"{indent}{out} += {layout}.pack({', '.join(name for name, _ in run)})")
        run.clear()

    def _length(self, count: str, out: str, indent: str, code: str) -> None:
        if self._flexible:
            self._source.line(f"{indent}if {count} < 127: {out}.append({count} + 1)")
            self._source.line(f"{indent}else: put_uvarint({out}, {count} + 1)")
        else:
            self._source.line(f"{indent}{out} += {self._source.packed(code)}.pack({count})")

    def _null(self, spec: FieldSpec, out: str, code: str) -> str:
        if self._version not in spec.nullable:
            return f"null({spec.name!r})"
        return f"{out}.append(0)" if self._flexible else f"{out} += {self._source.packed(code)}.pack(-1)"

    def _value(self, spec: FieldSpec, value: str, out: str, depth: int) -> None:
        source, indent = self._source, "    " * depth
        if not spec.is_array and not isinstance(spec.item, str):
            if self._version not in spec.nullable:
                self.message(spec.item, value, out, depth)
                return
            source.line(f"{indent}if {value} is None: {out}.append(255)")
            source.line(f"{indent}else:")
            source.line(f"{indent}    {out}.append(1)")
            self.message(spec.item, value, out, depth + 1)
            return
        if not spec.is_array and (spec.item in NUMBERS or spec.item == "uuid"):
            self._item(spec, value, out, depth)
            return
        name = source.fresh()
        source.line(f"{indent}{name} = {value}")
        code = "h" if spec.item == "string" and not spec.is_array else "i"
        source.line(f"{indent}if {name} is None: {self._null(spec, out, code)}")
        source.line(f"{indent}else:")
        if not spec.is_array:
            self._item(spec, name, out, depth + 1)
            return
        source.line(f"{indent}    n = len({name})")
        self._length("n", out, indent + "    ", "i")
        if spec.item in NUMBERS:
            source.names["pack"] = struct.pack
            source.line(f'{indent}    {out} += pack(f">{{n}}{NUMBERS[str(spec.item)][0]}", *{name})')
            return
        item = source.fresh()
        source.line(f"{indent}    for {item} in {name}:")
        if isinstance(spec.item, str):
            self._item(item_of(spec), item, out, depth + 2)
        else:
            self.message(spec.item, item, out, depth + 2)

    def _item(self, spec: FieldSpec, value: str, out: str, depth: int) -> None:
        """Write the encoding of one scalar that is not null."""
        source, indent = self._source, "    " * depth
        if spec.item in NUMBERS:
            source.line(f"{indent}{out} += {source.packed(NUMBERS[str(spec.item)][0])}.pack({value})")
            return
        if spec.item == "uuid":
            source.line(f"{indent}{out} += {source.packed('16s')}.pack({value})")
            return
        if spec.item == "string":
            name = source.fresh()
            source.line(f"{indent}{name} = {value}.encode()")
            value = name
        source.line(f"{indent}n = len({value})")
        self._length("n", out, indent, "h" if spec.item == "string" else "i")
        if spec.item == "records":
            source.line(f"{indent}if n < {BY_REFERENCE}: {out} += {value}")
            source.line(f"{indent}else:")
            source.line(f"{indent}    parts.append({out}); parts.append({value}); {out} = bytearray()")
        else:
            source.line(f"{indent}{out} += {value}")

    def _tags(self, tagged: list[FieldSpec], value: str, out: str, depth: int) -> None:
        source, indent = self._source, "    " * depth
        if not tagged:
            source.line(f"{indent}{out}.append(0)")
            return
        count, body = source.fresh(), source.fresh()
        source.line(f"{indent}{count} = 0; {body} = bytearray()")
        for spec in sorted(tagged, key=lambda spec: spec.tag or 0):
            field, piece = f"{value}.{spec.name}", source.fresh()
            default = self._default(spec)
            same = f"{field} is not {default} and " if isinstance(spec.default, type) else ""
            source.line(f"{indent}if {same}{field} != {default}:")
            source.line(f"{indent}    {count} += 1; {piece} = bytearray()")
            self._value(spec, field, piece, depth + 1)
            source.line(f"{indent}    put_uvarint({body}, {spec.tag}); put_uvarint({body}, len({piece}))")
            source.line(f"{indent}    {body} += {piece}")
        source.line(f"{indent}{out}.append({count}); {out} += {body}")

    def _default(self, spec: FieldSpec) -> str:
        if spec.default is list:
            return "[]"
        if isinstance(spec.default, type):
            return self._source.bind("D", default_instance(spec.default))
        return repr(spec.default)


@cache
def default_instance(cls: type[_Message]) -> _Message:
    """The one instance that encoders know to be the default without comparing: never change it."""
    return cls()
