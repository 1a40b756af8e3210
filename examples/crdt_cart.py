"""The shopping cart of the Dynamo paper again, as a set that merges itself: nobody writes a merge function.

    python examples/crdt_cart.py

It starts three nodes on this machine, and stops them at the end. A cart is a map of a set, its items, and a counter, of
how many were ever put in. Two devices of one customer fill it while a node is killed. Beside `shopping_cart.py`: what
was taken out does not come back, and the counter has counted each item once, whatever had to be sent again.

Source: DeCandia 2007, "Dynamo: Amazon's Highly Available Key-value Store", §4.4, where deleted items resurface; Shapiro
2011, "A comprehensive study of Convergent and Commutative Replicated Data Types" (the observed-remove set).
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from merganser import SyncClient
from merganser.client import SyncCrdt
from merganser.model.errors import UnavailableError, UnknownOutcomeError
from merganser.node.local_cluster import LocalCluster

ITEMS = 40
"""That each of the two devices puts into the cart while a node is killed."""
TABLE = "carts-that-merge"


def add(cart: SyncCrdt, item: str) -> None:
    """Put an item into a cart, and count it.

    An item that may have been added is added once more: it is in the set once. What is counted, the client sends again
    by itself, under an id, and it counts once.
    """
    while True:
        try:
            cart.set("items").add(item)
            break
        except (UnavailableError, UnknownOutcomeError) as error:
            print(f"  {item} is added once more: {type(error).__name__}")
    cart.counter("put in").increment(timeout_s=30.0)


def side_by_side(phone: SyncClient, laptop: SyncClient) -> bool:
    """Show two devices that did not know of each other."""
    print("1. two devices fill one cart, and neither has seen what the other put in")
    phone.crdt(TABLE, "ann").set("items").add("milk")
    laptop.crdt(TABLE, "ann").set("items").add("bread")
    items = phone.crdt(TABLE, "ann").set("items").get()
    print(f"   it holds {shown(items)}, and there was nothing to merge")
    return items == {b"milk", b"bread"}


def while_a_node_dies(cluster: LocalCluster, phone: SyncClient, laptop: SyncClient) -> bool:
    """Fill a cart from two devices, kill a node meanwhile, and tell whether everything is there, and counted once."""
    print(f"2. both put in {ITEMS} items, and a node is killed meanwhile")
    half = threading.Barrier(3, timeout=60.0)

    def fill(client: SyncClient, device: str) -> None:
        for number in range(ITEMS):
            if number == ITEMS // 4:
                half.wait()
            add(client.crdt(TABLE, "ben"), f"{device}-{number}")

    devices = [threading.Thread(target=fill, args=one) for one in ((phone, "phone"), (laptop, "laptop"))]
    for device in devices:
        device.start()
    half.wait()
    cluster.nodes[-1].kill()
    print("   node 3 is gone")
    for device in devices:
        device.join()
    added = {f"{device}-{number}".encode() for device in ("phone", "laptop") for number in range(ITEMS)}
    cart = phone.crdt(TABLE, "ben")
    missing, counted = added - cart.set("items").get(), cart.counter("put in").get()
    print(f"   {len(added)} items were put in, {len(missing)} are missing, {counted} were counted")
    return not missing and counted == len(added)


def taken_out(phone: SyncClient, laptop: SyncClient) -> bool:
    """Show that what was taken out stays out, unless somebody has put it in who did not know."""
    print("3. the phone takes the bread out, the laptop adds eggs to the cart that it had seen before")
    cart, there = phone.crdt(TABLE, "cat").set("items"), laptop.crdt(TABLE, "cat").set("items")
    cart.add("milk", "bread")
    _, seen = there.fetch()
    cart.remove("bread")
    there.add("eggs")
    items = cart.get()
    print(f"   it holds {shown(items)}: the bread stays out")
    print("4. the laptop puts milk in once more, and the phone takes out the milk that it had seen before")
    there.add("milk")
    cart.remove("milk", context=seen)
    again = cart.get()
    print(f"   it holds {shown(again)}: whoever puts in wins over whoever had not seen it")
    return items == again == {b"milk", b"eggs"}


def shown(items: frozenset[bytes]) -> Sequence[str]:
    """Return the items of a cart in order."""
    return sorted(item.decode() for item in items)


def shop(cluster: LocalCluster) -> bool:
    """Run all of it on ``cluster``, of which the last node is killed; returns whether nothing was lost."""
    seeds = [node.addresses["peers"] for node in cluster.nodes]
    with SyncClient(seeds, name="phone") as phone, SyncClient(seeds, name="laptop") as laptop:
        phone.create_table(TABLE, conflicts="crdt")
        is_well = side_by_side(phone, laptop)
        is_well = while_a_node_dies(cluster, phone, laptop) and is_well
        return taken_out(phone, laptop) and is_well


def main() -> int:
    """Run it; returns 0 if nothing was lost."""
    with (
        tempfile.TemporaryDirectory(prefix="merganser-cart-") as directory,
        LocalCluster(Path(directory) / "cluster", zones=("a", "b", "c")) as cluster,
    ):
        is_well = shop(cluster)
    print("nothing that was put in was lost" if is_well else "SOMETHING IS WRONG")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
