"""The shopping cart of the Dynamo paper: always writable, and nothing that was put in is lost.

    python examples/shopping_cart.py

It starts three nodes on this machine, and stops them at the end. Two devices of one customer fill her cart at the same
time, a node is killed meanwhile, and what comes of it is read. A cart is a list of items in JSON; where two devices did
not know of each other, both carts stand side by side as siblings, and the merge function makes one of them: the union,
which never loses an item that was put in.

Source: DeCandia 2007, "Dynamo: Amazon's Highly Available Key-value Store", §4.4, §6.1 (business logic specific
reconciliation).
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path

from merganser import SyncClient
from merganser.client import SyncValueTable
from merganser.model.errors import UnavailableError, UnknownOutcomeError
from merganser.node.local_cluster import LocalCluster

ITEMS = 40
"""That each of the two devices puts into the cart while a node is killed."""


def pack(items: Iterable[str]) -> bytes:
    """Return a cart as it is stored."""
    return json.dumps(sorted(set(items))).encode()


def unpack(cart: bytes | None) -> set[str]:
    """Return the items of a stored cart."""
    return set(json.loads(cart)) if cart else set()


def merge(carts: list[bytes]) -> bytes:
    """Return what several carts come to: everything that is in any of them."""
    return pack(item for cart in carts for item in unpack(cart))


def add(carts: SyncValueTable, customer: str, item: str) -> None:
    """Put an item into a cart.

    Whatever has become of the first try, adding once more changes nothing: so what failed, or may have, is tried again.
    """
    while True:
        try:
            carts.update(customer, lambda cart: pack({*unpack(cart), item}))
            return
        except (UnavailableError, UnknownOutcomeError) as error:
            print(f"  {item} is added once more: {type(error).__name__}")


def side_by_side(carts: SyncValueTable) -> None:
    """Show two devices that did not know of each other."""
    print("1. two devices fill one cart, and neither has seen what the other put in")
    carts.put("ann", pack(["milk"]), context=b"")
    carts.put("ann", pack(["bread"]), context=b"")
    for sibling in carts.get("ann").siblings:
        print(f"   node {sibling.by_node} was given {sibling.value.decode()}")
    add(carts, "ann", "eggs")
    cart = carts.get("ann")
    print(f"   merged, with eggs: {cart.value!r}, which is {len(cart.siblings)} value")


def while_a_node_dies(cluster: LocalCluster, phone: SyncValueTable, laptop: SyncValueTable) -> bool:
    """Fill a cart from two devices, kill a node meanwhile, and tell whether everything is there."""
    print(f"2. both put in {ITEMS} items, and a node is killed meanwhile")
    half = threading.Barrier(3)

    def fill(carts: SyncValueTable, device: str) -> None:
        for number in range(ITEMS):
            if number == ITEMS // 4:
                half.wait()
            add(carts, "ben", f"{device}-{number}")

    devices = [threading.Thread(target=fill, args=one) for one in ((phone, "phone"), (laptop, "laptop"))]
    for device in devices:
        device.start()
    half.wait()
    cluster.nodes[-1].kill()
    print("   node 3 is gone")
    for device in devices:
        device.join()
    added = {f"{device}-{number}" for device in ("phone", "laptop") for number in range(ITEMS)}
    missing = added - unpack(phone.get("ben").value)
    print(f"   {len(added)} items were put in, {len(missing)} are missing")
    return not missing


def resurfacing(phone: SyncValueTable, laptop: SyncValueTable) -> bool:
    """Show the price of that: what was taken out may come back."""
    print("3. the phone takes the bread out, the laptop adds eggs to the cart that it had seen before")
    phone.put("cat", pack(["milk", "bread"]), context=b"")
    seen = laptop.get("cat")
    phone.update("cat", lambda cart: pack(unpack(cart) - {"bread"}))
    laptop.put("cat", pack({*unpack(seen.value), "eggs"}), context=seen.context)
    items = unpack(phone.get("cat").value)
    print(f"   the union has {sorted(items)}: the bread is back, as it would be in the paper's cart")
    return items == {"milk", "bread", "eggs"}


def main() -> int:
    """Run all of it; returns 0 if nothing was lost."""
    with (
        tempfile.TemporaryDirectory(prefix="merganser-cart-") as directory,
        LocalCluster(Path(directory) / "cluster", zones=("a", "b", "c")) as cluster,
    ):
        seeds = [node.addresses["peers"] for node in cluster.nodes]
        with (
            SyncClient(seeds, merge=merge, name="phone") as one,
            SyncClient(seeds, merge=merge, name="laptop") as two,
        ):
            phone, laptop = one.create_table("carts"), two.table("carts")
            side_by_side(phone)
            is_well = while_a_node_dies(cluster, phone, laptop)
            is_well = resurfacing(phone, laptop) and is_well
    print("nothing that was put in was lost" if is_well else "SOMETHING IS WRONG")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
