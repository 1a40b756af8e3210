"""Where tables may live: what their makers write, whether a cluster has such places, and the numbers of policies.

A policy gets a number in the cluster map when a first table asks for it, and tables that ask for the same share it: its
number is part of the name of the groups that elect leaders (docs/adr/0011). A policy that no table has any more is
forgotten; the latest one stays, so that no number is given twice.

Nodes elsewhere keep nothing of such a table. No table can be made, and no node be taken away, such that nobody would be
left to hold it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec

from merganser.model.cluster import NO_TABLE, ClusterMap, NodeRecord, Operation, Table
from merganser.model.errors import RequestError
from merganser.model.policy import FIRST_POLICY, Policy

REPLICAS_MAX = 16
"""Of one key in one data centre, and of a table that says no data centres: more than anybody is known to want."""
NAMED_MAX = 32
"""Data centres, or zones, that one table names."""
NAME_LENGTH_MAX = 64
POLICIES_MAX = 1024
"""Different ones in use at once: each elects leaders of its own in all partitions that it has."""
_NUMBERS_END = 2**32
_SHOWN_MAX = 8


def parsed(*, replicas: str = "", data_centers: str = "", zones: str = "", n: int = 3) -> Policy:
    """Return the policy that somebody wrote.

    Args:
        replicas: a number, or ``DATA_CENTER=NUMBER`` for each that has any, separated by spaces or commas.
        data_centers: names, separated likewise.
        zones: likewise.
        n: how many replicas there are if ``replicas`` is empty.

    Raises:
        ValueError: it makes no sense; the message says what to write.
    """
    counts = [part.partition("=") for part in _words(replicas)]
    centers, allowed = _names("data centre", data_centers), _names("zone", zones)
    if counts and counts[0][1]:
        if centers:
            raise ValueError(
                f"{replicas.strip()!r} says already which data centres there are replicas in: leave out the other list"
            )
        named = [(check_name("data centre", name), _count(count)) for name, _, count in counts]
        _refuse_repeated("data centre", [name for name, _ in named])
        return Policy(sum(count for _, count in named), replicas=tuple(sorted(named)), zones=allowed)
    if len(counts) > 1:
        raise ValueError(f"{replicas.strip()!r} is neither a number nor a list such as eu=3 us=2")
    wanted = _count(counts[0][0]) if counts else n
    if len(centers) == 1:
        return Policy(wanted, replicas=((centers[0], wanted),), zones=allowed)
    return Policy(wanted, data_centers=centers, zones=allowed)


def written(policy: Policy) -> dict[str, str]:
    """Return a policy as somebody would write it for `parsed`."""
    return {
        "replicas": " ".join(f"{name}={count}" for name, count in policy.replicas) or str(policy.n),
        "data_centers": " ".join(policy.data_centers),
        "zones": " ".join(policy.zones),
    }


def rewritten(
    policy: Policy, *, replicas: str | None = None, data_centers: str | None = None, zones: str | None = None
) -> Policy:
    """Return ``policy`` with what somebody wrote in the place of its parts; what is None stays as it is.

    Raises:
        ValueError: as `parsed`.
    """
    said = written(policy)
    if data_centers is not None and replicas is None and policy.replicas:
        said["replicas"] = str(policy.n)
    if replicas is not None and "=" in replicas and data_centers is None:
        said["data_centers"] = ""
    given = {"replicas": replicas, "data_centers": data_centers, "zones": zones}
    said |= {name: text for name, text in given.items() if text is not None}
    return parsed(**said, n=policy.n)


def check_places(cluster_map: ClusterMap, policy: Policy) -> None:
    """Return if there are nodes in every place that ``policy`` names.

    Raises:
        RequestError: not; says which places there are.
    """
    for nodes in _owning(cluster_map), _owning_after(cluster_map, cluster_map.operation):
        for flaw in _missing(policy, nodes):
            raise RequestError(flaw)


def changed(cluster_map: ClusterMap, wanted: Collection[tuple[int, Policy]]) -> ClusterMap:
    """Return ``cluster_map`` with other policies under some of its numbers, and all that follows; its epoch stays."""
    others = dict(wanted)
    if not others:
        return cluster_map
    return msgspec.structs.replace(
        cluster_map,
        policies=tuple((number, others.get(number, policy)) for number, policy in cluster_map.policies),
        tables=tuple(
            msgspec.structs.replace(table, n=others[table.policy].n) if table.policy in others else table
            for table in cluster_map.tables
        ),
    )


def check_left(cluster_map: ClusterMap, operation: Operation) -> None:
    """Return if ``operation`` leaves nodes for every table.

    Raises:
        RequestError: not; nobody could hold one.
    """
    after = _owning_after(cluster_map, operation)
    for table in cluster_map.tables:
        policy = _policy_after(cluster_map, table, operation)
        if not _allowed(policy, after):
            raise RequestError(
                f"table {table.name!r} keeps {policy}, and no node that may hold it would be left: drop the table, or "
                "have others join there first"
            )


def numbered(cluster_map: ClusterMap, policy: Policy) -> tuple[int, tuple[tuple[int, Policy], ...]]:
    """Return the number of ``policy``, and the policies of the map that it is one of.

    Raises:
        RequestError: the map has too many, or no nodes in a place that it names.
    """
    if not policy.is_bound:
        return 0, cluster_map.policies
    changing = changing_number(cluster_map)
    known = {one: number for number, one in cluster_map.policies if number != changing}
    if policy in known:
        return known[policy], cluster_map.policies
    check_places(cluster_map, policy)
    return with_number_of_its_own(cluster_map, policy)


def chosen(
    cluster_map: ClusterMap, policy: Policy | None, number: int, *, n: int
) -> tuple[int, tuple[tuple[int, Policy], ...], Policy]:
    """Return the number of the policy of a new table, the policies of the map with it, and the policy.

    Args:
        cluster_map: the newest one.
        policy: as asked for; None: ``n`` replicas.
        number: of one that the map has, whatever it is by now; 0: that of ``policy``.
        n: how many there are if nothing else is said.

    Raises:
        RequestError: as `numbered`, or the map has no policy of that number.
    """
    if not number:
        wanted = policy or Policy(n)
        return *numbered(cluster_map, wanted), wanted
    known = dict(cluster_map.policies).get(number)
    if known is None:
        raise RequestError(f"no table has policy {number} any more")
    return number, cluster_map.policies, known


def changing_number(cluster_map: ClusterMap) -> int:
    """Return the number of the policy of the table whose policy changes, 0 if none does: nobody else is to have it."""
    operation = cluster_map.operation
    table = operation.table if operation is not None else NO_TABLE
    return next((known.policy for known in cluster_map.tables if known.id == table), 0)


def with_number_of_its_own(cluster_map: ClusterMap, policy: Policy) -> tuple[int, tuple[tuple[int, Policy], ...]]:
    """Return a number that no policy had, and the policies of the map with ``policy`` under it.

    Raises:
        RequestError: the map has too many.
    """
    in_use = {table.policy for table in cluster_map.tables}
    last = max((number for number, _ in cluster_map.policies), default=FIRST_POLICY - 1)
    kept = tuple((number, one) for number, one in cluster_map.policies if number in in_use)
    if len(kept) >= POLICIES_MAX or last + 1 >= _NUMBERS_END:
        raise RequestError(f"this cluster's tables have {len(kept)} different policies already: use one of them")
    return last + 1, (*kept, (last + 1, policy))


def strictest(cluster_map: ClusterMap, numbers: Collection[int]) -> int | None:
    """Return that of some policies of the map which allows nothing that another forbids, None if there is none."""
    known = dict(cluster_map.policies)
    wanted = [known[number] for number in numbers if number in known]
    return next((number for number in sorted(numbers) if all(map(known[number].is_within, wanted))), None)


def flaws(cluster_map: ClusterMap) -> Iterator[str]:
    """Yield what is wrong with the policies of a map, in words."""
    numbers = [number for number, _ in cluster_map.policies]
    if sorted(set(numbers)) != numbers:
        yield "policies are not in ascending order of number, each once"
    for number, policy in cluster_map.policies:
        if not FIRST_POLICY <= number < _NUMBERS_END:
            yield f"a policy has number {number}, outside {FIRST_POLICY}..{_NUMBERS_END - 1}"
        if policy.n < 1 or any(count < 1 for _, count in policy.replicas):
            yield f"policy {number} wants no replicas"
        if policy.replicas and sum(count for _, count in policy.replicas) != policy.n:
            yield f"policy {number} wants {policy.n} replicas, and others in its data centres"
    wanted = dict(cluster_map.policies)
    for table in cluster_map.tables:
        if table.policy and table.policy not in wanted:
            yield f"table {table.name!r} has policy {table.policy}, and there is none of that number"
        elif table.policy and wanted[table.policy].n != table.n:
            yield f"table {table.name!r} has {table.n} replicas, and its policy wants {wanted[table.policy].n}"


def lost_by(cluster_map: ClusterMap, tables: Iterable[Table], operation: Operation) -> Iterator[str]:
    """Yield, of each of ``tables``, what would keep it from having as many replicas as it has now."""
    now, after = _owning(cluster_map), _owning_after(cluster_map, operation)
    for table in tables:
        policy = cluster_map.policy_of(table)
        for name, wanted, before, left in _counted(policy, now, after):
            if left < min(wanted, before):
                where = f" in data centre {name!r}" if name else " where it may be" if policy.is_bound else ""
                yield (
                    f"table {table.name} keeps {wanted} replicas of each key{where}, and {_nodes(left)} would be left "
                    "to hold them: have others join first"
                )


def short_of(cluster_map: ClusterMap, policy: Policy) -> Iterator[str]:
    """Yield what keeps a table of ``policy`` from having as many replicas as that says."""
    nodes = _owning(cluster_map)
    for name, wanted, _, there in _counted(policy, nodes, nodes):
        if there < wanted:
            where = f"in data centre {name!r}" if name else "where it may be"
            yield (
                f"{wanted} replicas of each key are wanted {where}, and {_nodes(there)} can hold them: have others join"
            )


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _counted(
    policy: Policy, now: Sequence[NodeRecord], after: Sequence[NodeRecord]
) -> Iterator[tuple[str, int, int, int]]:
    """Yield data centre ("" for all together), replicas wanted there, and nodes that may hold them now and later."""
    parts = [(name, count, Policy(count, ((name, count),), zones=policy.zones)) for name, count in policy.replicas]
    for name, count, part in parts or [("", policy.n, policy)]:
        yield name, count, _allowed(part, now), _allowed(part, after)


def _policy_after(cluster_map: ClusterMap, table: Table, operation: Operation | None) -> Policy:
    """Return the policy of a table once ``operation`` is done."""
    if operation is not None and operation.policy is not None and operation.table == table.id:
        return operation.policy
    return cluster_map.policy_of(table)


def _allowed(policy: Policy, nodes: Sequence[NodeRecord]) -> int:
    return sum(policy.allows(node.data_center, node.zone) for node in nodes)


def _owning(cluster_map: ClusterMap) -> list[NodeRecord]:
    owning = set(cluster_map.owners)
    return [node for node in cluster_map.nodes if node.number in owning]


def _owning_after(cluster_map: ClusterMap, operation: Operation | None) -> list[NodeRecord]:
    """Return the nodes that own anything once ``operation`` is done, in the zones that they are in then."""
    if operation is None:
        return _owning(cluster_map)
    owning, zones = set(operation.owners), dict(operation.zones)
    return [
        msgspec.structs.replace(node, zone=zones.get(node.number, node.zone))
        for node in cluster_map.nodes
        if node.number in owning
    ]


def _missing(policy: Policy, nodes: Sequence[NodeRecord]) -> Iterator[str]:
    centers, zones = {node.data_center for node in nodes}, {node.zone for node in nodes}
    for name in policy.allowed:
        if name not in centers:
            yield f"no node that owns anything is in data centre {name!r}; there are {_there(centers)}"
        elif not any(node.data_center == name and policy.allows(name, node.zone) for node in nodes):
            yield f"no node of data centre {name!r} is in zones {', '.join(policy.zones)}"
    for name in policy.zones:
        if name not in zones:
            yield f"no node that owns anything is in zone {name!r}; there are {_there(zones)}"
        elif not any(node.zone == name and policy.allows(node.data_center, name) for node in nodes):
            yield f"no node of zone {name!r} is in data centres {', '.join(policy.allowed)}"


def _there(names: Collection[str]) -> str:
    named = sorted(name for name in names if name)
    return ", ".join(map(repr, named[:_SHOWN_MAX])) if named else "none: start nodes with --data-center and --zone"


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _names(what: str, text: str) -> tuple[str, ...]:
    names = [check_name(what, word) for word in _words(text)]
    _refuse_repeated(what, names)
    return tuple(sorted(names))


def check_name(what: str, name: str) -> str:
    """Return ``name`` if tables can name a data centre so.

    Raises:
        ValueError: they cannot; the message says what to write.
    """
    is_writable = name.isprintable() and not any(character in "=, " for character in name)
    if not is_writable or not 1 <= len(name) <= NAME_LENGTH_MAX:
        raise ValueError(
            f"{name!r:.80} is no name of a {what}: write 1 to {NAME_LENGTH_MAX} characters without =, comma and space"
        )
    return name


def _refuse_repeated(what: str, names: Sequence[str]) -> None:
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ValueError(f"{what} {repeated[0]!r} is there twice")
    if len(names) > NAMED_MAX:
        raise ValueError(f"{len(names)} are named, and a table can name {NAMED_MAX}")


def _count(digits: str) -> int:
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 2 or not 1 <= int(digits) <= REPLICAS_MAX:
        raise ValueError(f"{digits!r} is no number of replicas: write 1 to {REPLICAS_MAX}")
    return int(digits)
