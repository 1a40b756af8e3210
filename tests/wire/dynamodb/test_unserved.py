"""The table of what is not served, against botocore's model: what is named in it exists."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel

from merganser.wire.dynamodb.unserved import STREAM_OPERATIONS, UNSERVED
from wire.dynamodb.api import model


@pytest.mark.parametrize(("place", "name"), [(place, name) for place, names in UNSERVED.items() for name in names])
def test_what_is_refused_by_name_is_a_parameter_of_the_api(place: str, name: str) -> None:
    operation, *path = place.split(".")
    shape: Any = model().operation_model(operation).input_shape
    for member in path:
        shape = shape.members[member]
        while shape.type_name in ("map", "list"):
            shape = shape.value if shape.type_name == "map" else shape.member
    assert name in shape.members


def test_the_operations_of_streams_are_those_of_their_api() -> None:
    streams = ServiceModel(Loader().load_service_model("dynamodbstreams", "service-2"))
    assert set(streams.operation_names) == STREAM_OPERATIONS
