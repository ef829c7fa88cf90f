"""Writes the source of one decoder: `decode(b, p, end, k)`.

b is a memoryview, p where to begin, k how many array items and unknown tags there may be in all.
"""

import struct

from tailrace.broker.protocol.fields import FieldSpec, wire_fields
from tailrace.broker.protocol.source import NUMBERS, Source, item_of, smallest_size


class DecoderWriter:
    def __init__(self, source: Source, version: int, flexible: bool) -> None:
        self._source = source
        self._version = version
        self._flexible = flexible

    def message(self, cls: type, depth: int) -> str:
        """Write the decoding of one message; the name that holds it."""
        source, indent = self._source, "    " * depth
        values: list[str] = []
        run: list[tuple[str, FieldSpec]] = []
        tagged: list[tuple[str, FieldSpec]] = []
        for spec in wire_fields(cls):
            name = source.fresh()
            values.append(name)
            if self._version not in spec.versions or spec.tag is not None:
                self._run(run, indent)
                source.line(f"{indent}{name} = {self._default(spec)}")
                if spec.tag is not None and self._version in spec.versions and self._flexible:
                    tagged.append((name, spec))
            elif spec.item in NUMBERS and not spec.is_array:
                run.append((name, spec))
            else:
                self._run(run, indent)
                self._value(spec, name, depth)
        self._run(run, indent)
        if self._flexible:
            self._tags(tagged, depth)
        result = source.fresh()
        source.line(f"{indent}{result} = {source.bind('C', cls)}({', '.join(values)})")
        return result

    def _default(self, spec: FieldSpec) -> str:
        if spec.default is list:
            return "[]"
        if isinstance(spec.default, type):
            return f"{self._source.bind('C', spec.default)}()"
        return repr(spec.default)

    def _run(self, run: list[tuple[str, FieldSpec]], indent: str) -> None:
        if not run:
            return
        kinds = [NUMBERS[str(spec.item)] for _, spec in run]
        layout = self._source.packed("".join(code for code, _ in kinds))
        targets = "".join(f"{name}, " for name, _ in run)
        self._source.line(
            f"{indent}{targets.rstrip()} = {layout}.unpack_from(b, p); p += {sum(size for _, size in kinds)}"
        )
        run.clear()

    def _length(self, indent: str, code: str) -> None:
        """Write: n = the length or count that comes next, -1 for null."""
        source = self._source
        if self._flexible:
            source.line(f"{indent}n = b[p] - 1; p += 1")
            source.line(f"{indent}if n > 126:")
            source.line(f"{indent}    n, p = uvarint(b, p - 1); n -= 1")
        else:
            size = NUMBERS[{"h": "int16", "i": "int32"}[code]][1]
            source.line(f"{indent}n, = {source.packed(code)}.unpack_from(b, p); p += {size}")

    def _null(self, spec: FieldSpec, name: str, indent: str) -> None:
        """Write what a negative length means."""
        if self._version in spec.nullable:
            self._source.line(f"{indent}if n == -1: {name} = None")
            self._source.line(f"{indent}elif n < 0: null()")
        else:
            self._source.line(f"{indent}if n < 0: null()")

    def _value(self, spec: FieldSpec, name: str, depth: int) -> None:
        source, indent = self._source, "    " * depth
        if not spec.is_array:
            if not isinstance(spec.item, str) and self._version in spec.nullable:
                source.line(f"{indent}n = b[p]; p += 1")
                source.line(f"{indent}if n == 255: {name} = None")
                source.line(f"{indent}else:")
                source.line(f"{indent}    {name} = {self.message(spec.item, depth + 1)}")
            else:
                self._item(spec, name, depth)
            return
        self._length(indent, "i")
        self._null(spec, name, indent)
        source.line(f"{indent}else:")
        inner = indent + "    "
        smallest = smallest_size(spec.item, self._version, self._flexible)
        source.line(f"{inner}if n * {smallest} > end - p: short()")
        source.line(f"{inner}k -= n")
        source.line(f"{inner}if k < 0: many()")
        if spec.item in NUMBERS:
            code, size = NUMBERS[str(spec.item)]
            source.line(f'{inner}{name} = list(unpack_from(f">{{n}}{code}", b, p)); p += n * {size}')
            source.names["unpack_from"] = struct.unpack_from
            return
        index, item = source.fresh(), source.fresh()
        source.line(f"{inner}{name} = []")
        source.line(f"{inner}for {index} in range(n):")
        if isinstance(spec.item, str):
            self._item(item_of(spec), item, depth + 2)
        else:
            item = self.message(spec.item, depth + 2)
        source.line(f"{inner}    {name}.append({item})")

    def _item(self, spec: FieldSpec, name: str, depth: int) -> None:
        """Write the decoding of one value that is no array, into `name`."""
        source, indent = self._source, "    " * depth
        if not isinstance(spec.item, str):
            source.line(f"{indent}{name} = {self.message(spec.item, depth)}")
            return
        if spec.item in NUMBERS:
            self._run([(name, spec)], indent)
            return
        if spec.item == "uuid":
            source.line(f"{indent}if p + 16 > end: short()")
            source.line(f"{indent}{name} = bytes(b[p:p + 16]); p += 16")
            return
        self._length(indent, "h" if spec.item == "string" else "i")
        self._null(spec, name, indent)
        form = {"string": 'str(b[p:q], "utf-8")', "bytes": "bytes(b[p:q])", "records": "b[p:q]"}[spec.item]
        source.line(f"{indent}else:")
        source.line(f"{indent}    q = p + n")
        source.line(f"{indent}    if q > end: short()")
        source.line(f"{indent}    {name} = {form}; p = q")

    def _tags(self, tagged: list[tuple[str, FieldSpec]], depth: int) -> None:
        source, indent = self._source, "    " * depth
        source.line(f"{indent}n = b[p]; p += 1")
        source.line(f"{indent}if n:")
        inner = indent + "    "
        if not tagged:
            source.line(f"{inner}p, k = skip_tags(b, p - 1, end, k)")
            return
        count, index, tag, size, stop = (source.fresh() for _ in range(5))
        source.line(f"{inner}{count}, p = uvarint(b, p - 1); k -= {count}")
        source.line(f"{inner}if k < 0: many()")
        source.line(f"{inner}for {index} in range({count}):")
        source.line(f"{inner}    {tag}, p = uvarint(b, p); {size}, p = uvarint(b, p); {stop} = p + {size}")
        source.line(f"{inner}    if {stop} > end: short()")
        for position, (name, spec) in enumerate(tagged):
            source.line(f"{inner}    {'el' if position else ''}if {tag} == {spec.tag}:")
            self._value(spec, name, depth + 3)
            source.line(f"{inner}        if p != {stop}: short()")
        source.line(f"{inner}    else: p = {stop}")
