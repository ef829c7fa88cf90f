"""Cycles of dependencies between operations (Adya's G0 and G1c, as Elle finds them).

    ww   T1 wrote the value right before one of T2's in the order of a key
    wr   T2 read a value that T1 wrote
    rt   T1 was answered before T2 was invoked

Kafka's transactions do not isolate writes, so cycles with ww edges are normal.  A commit lies behind the reads of
its transaction, and a read behind the commit that it shows: cycles of wr alone, or of wr and rt, cannot be.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import pairwise

from tests.jepsen.anomaly import Anomaly
from tests.jepsen.history import Operation
from tests.jepsen.observed import Observed

Edge = tuple[Operation, Operation]
Graph = dict[Operation, list[Operation]]


def cycles(seen: Observed) -> Iterator[Anomaly]:
    """One anomaly for each group of operations that depend on each other in a circle."""
    ww, wr, rt = list(_ww(seen)), list(_wr(seen)), list(_rt(seen))
    for name, edges in (("G0", ww), ("G1c-ww", ww + wr), ("G1c", wr), ("G1c-realtime", wr + rt)):
        graph: Graph = {}
        for before, after in edges:
            graph.setdefault(before, []).append(after)
        for component in components(graph):
            circle = " -> ".join(map(str, shortest_cycle(graph, component)))
            yield Anomaly(name, circle)


def _ww(seen: Observed) -> Iterator[Edge]:
    for key, order in seen.orders.items():
        for earlier, later in pairwise(order.values):
            for before in earlier:
                for after in later:
                    pair = seen.writer.get((key, before)), seen.writer.get((key, after))
                    if pair[0] is not None and pair[1] is not None and pair[0] is not pair[1]:
                        yield pair[0], pair[1]


def _wr(seen: Observed) -> Iterator[Edge]:
    for written, readers in seen.readers.items():
        writer = seen.writer.get(written)
        if writer is not None:
            yield from ((writer, reader) for reader in readers if reader is not writer)


def _rt(seen: Observed) -> Iterator[Edge]:
    """Enough edges that a path leads from an operation to each one that began after its end."""
    events = [(operation.invoked_ns, 1, operation) for operation in seen.history]
    events += [(o.completed_ns, 0, o) for o in seen.history if o.completed_ns is not None]
    events.sort(key=lambda event: (event[0], -event[1]))  # at the same time: concurrent
    ended: set[Operation] = set()
    before: dict[Operation, set[Operation]] = {}
    for _, begins, operation in events:
        if begins:
            before[operation] = set(ended)
            yield from ((earlier, operation) for earlier in ended)
        else:
            ended = (ended - before.pop(operation)) | {operation}


def components(graph: Graph) -> Iterator[set[Operation]]:
    """The strongly connected components of more than one operation (Tarjan's algorithm, without recursion)."""
    number: dict[Operation, int] = {}
    low: dict[Operation, int] = {}
    stack: list[Operation] = []
    on_stack: set[Operation] = set()
    for root in graph:
        if root in number:
            continue
        work = [(root, iter(graph[root]))]
        number[root] = low[root] = len(number)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, rest = work[-1]
            for after in rest:
                if after not in number:
                    number[after] = low[after] = len(number)
                    stack.append(after)
                    on_stack.add(after)
                    work.append((after, iter(graph.get(after, ()))))
                    break
                if after in on_stack:
                    low[node] = min(low[node], number[after])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    component = _popped(stack, node)
                    on_stack -= component
                    if len(component) > 1:
                        yield component


def _popped(stack: list[Operation], until: Operation) -> set[Operation]:
    component: set[Operation] = set()
    while until not in component:
        component.add(stack.pop())
    return component


def shortest_cycle(graph: Graph, component: Iterable[Operation]) -> list[Operation]:
    """A cycle through the component's earliest operation, as short as they come."""
    inside = set(component)
    start = min(inside, key=lambda operation: operation.invoked_ns)
    came_from: dict[Operation, Operation] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for after in graph.get(node, ()):
            if after is start:
                path = [start, node]
                while path[-1] is not start:
                    path.append(came_from[path[-1]])
                return path[::-1]
            if after in inside and after not in came_from:
                came_from[after] = node
                queue.append(after)
    raise AssertionError("a strongly connected component without a cycle")
