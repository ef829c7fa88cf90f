"""Compile Java sources with the compiler inside Flink's jars: `compile_java.py <classes> <class path> <source>...`"""

import os
import sys
from typing import Any

from pyflink.java_gateway import get_gateway


def main(classes: str, class_path: str, *sources: str) -> None:
    """Write the class files; Janino's error names file, line and column."""
    gateway = get_gateway()
    compiler = gateway.jvm.org.codehaus.janino.Compiler()
    compiler.setSourceVersion(8)
    compiler.setTargetVersion(8)
    compiler.setDebugLines(True)
    compiler.setDebugSource(True)
    compiler.setClassPath(_files(gateway, class_path.split(os.pathsep)))
    compiler.setDestinationDirectory(gateway.jvm.java.io.File(classes), True)
    compiler.compile(_files(gateway, list(sources)))


def _files(gateway: Any, paths: list[str]) -> Any:
    file_class = gateway.jvm.java.io.File
    array = gateway.new_array(file_class, len(paths))
    for i, path in enumerate(paths):
        array[i] = file_class(path)
    return array


if __name__ == "__main__":
    main(*sys.argv[1:])
