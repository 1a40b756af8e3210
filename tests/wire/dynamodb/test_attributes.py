from __future__ import annotations

import base64
import copy
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merganser.wire.dynamodb.attributes import TooLargeError, normalise, number_size
from merganser.wire.dynamodb.errors import SerializationError, ValidationError

INVALID = "One or more parameter values were invalid: "
EMPTY = "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
MANY = "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes"
CAST = "class sun.reflect.generics.reflectiveObjects.ParameterizedTypeImpl cannot be cast to class java.lang.Class"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param({}, EMPTY, id="no type"),
        pytest.param(None, EMPTY, id="null"),
        pytest.param({"S": None}, EMPTY, id="null content"),
        pytest.param({"X": "a"}, EMPTY, id="unknown type"),
        pytest.param({"S": "a", "N": "1"}, MANY, id="two types"),
        pytest.param(
            {"S": "a", "N": "x"}, "The parameter cannot be converted to a numeric value: x", id="two, one bad"
        ),
        pytest.param({"N": ""}, "The parameter cannot be converted to a numeric value", id="empty number"),
        pytest.param({"N": "x"}, "The parameter cannot be converted to a numeric value: x", id="no number"),
        pytest.param(
            {"N": "1" * 39}, "Attempting to store more than 38 significant digits in a Number", id="39 digits"
        ),
        pytest.param(
            {"N": "1e126"},
            "Number overflow. Attempting to store a number with magnitude larger than supported range",
            id="overflow",
        ),
        pytest.param(
            {"N": "1e-131"},
            "Number underflow. Attempting to store a number with magnitude smaller than supported range",
            id="underflow",
        ),
        pytest.param(
            {"NULL": False}, INVALID + "Null attribute value types must have the value of true", id="not null"
        ),
        pytest.param({"SS": []}, INVALID + "An string set  may not be empty", id="no strings"),
        pytest.param({"NS": []}, INVALID + "An number set  may not be empty", id="no numbers"),
        pytest.param({"BS": []}, INVALID + "Binary sets should not be empty", id="no binaries"),
        pytest.param({"SS": ["b", "b"]}, INVALID + "Input collection [b, b] contains duplicates.", id="string twice"),
        pytest.param({"NS": ["1", "1.0"]}, "Input collection contains duplicates", id="number twice"),
        pytest.param(
            {"BS": ["AA==", "AA=="]},
            INVALID + "Input collection [AA==, AA==]of type BS contains duplicates.",
            id="binary twice",
        ),
        pytest.param({"L": [{"S": "a"}, {}]}, EMPTY, id="empty in list"),
        pytest.param({"M": {"a": {}}}, EMPTY, id="empty in map"),
        pytest.param({"M": {"": {"S": "a"}}}, "Empty attribute name", id="nameless in map"),
    ],
)
def test_invalid_value_is_refused_in_dynamodbs_words(value: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        normalise({"a": value})
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param("x", "Unexpected value type in payload", id="bare string"),
        pytest.param(1, "Unexpected value type in payload", id="bare number"),
        pytest.param(
            [], "Unrecognized collection type class com.amazonaws.dynamodb.v20120810.AttributeValue", id="bare list"
        ),
        pytest.param({"S": 1}, "NUMBER_VALUE cannot be converted to String", id="S number"),
        pytest.param({"S": 1.5}, "DECIMAL_VALUE cannot be converted to String", id="S decimal"),
        pytest.param({"S": True}, "TRUE_VALUE cannot be converted to String", id="S true"),
        pytest.param({"S": []}, "Unrecognized collection type class java.lang.String", id="S list"),
        pytest.param({"S": {}}, "Start of structure or map found where not expected", id="S map"),
        pytest.param({"N": 1}, "NUMBER_VALUE cannot be converted to String", id="N number"),
        pytest.param({"BOOL": "wahr"}, "Unexpected token received from parser", id="BOOL string"),
        pytest.param({"BOOL": 1}, "NUMBER_VALUE cannot be converted to Boolean", id="BOOL number"),
        pytest.param({"NULL": []}, "Unrecognized collection type class java.lang.Boolean", id="NULL list"),
        pytest.param({"B": 1}, "only base-64-encoded strings are convertible to bytes", id="B number"),
        pytest.param(
            {"B": "AAA"}, "Base64 encoded length is expected a multiple of 4 bytes but found: 3", id="B short"
        ),
        pytest.param({"B": "A$=="}, "Invalid Base64 character: '$'", id="B dollar"),
        pytest.param({"B": "AB=="}, "Invalid last non-pad Base64 character dectected", id="B bits left over"),
        pytest.param({"B": "AA=A"}, "Invalid last non-pad Base64 character dectected", id="B pad inside"),
        pytest.param({"B": "ééé="}, "Invalid Base64 character: 'é'", id="B accents"),
        pytest.param({"SS": "a"}, "Unexpected field type", id="SS string"),
        pytest.param({"SS": {}}, "Start of structure or map found where not expected", id="SS map"),
        pytest.param({"SS": [1]}, "NUMBER_VALUE cannot be converted to String", id="SS of numbers"),
        pytest.param({"BS": ["A"]}, "Base64 encoded length is expected a multiple of 4 bytes but found: 1", id="BS"),
        pytest.param({"L": {}}, "Start of structure or map found where not expected", id="L map"),
        pytest.param({"L": ["x"]}, "Unexpected value type in payload", id="L of strings"),
        pytest.param({"M": {"b": "x"}}, "Unexpected value type in payload", id="M of strings"),
        pytest.param(
            {"M": []},
            "Unrecognized collection type java.util.Map<java.lang.String, "
            "com.amazonaws.dynamodb.v20120810.AttributeValue>",
            id="M list",
        ),
    ],
)
def test_value_of_another_json_type_is_a_serialization_error(value: Any, message: str) -> None:
    with pytest.raises(SerializationError) as caught:
        normalise({"a": value})
    assert caught.value.message == message


@pytest.mark.parametrize("value", [{"L": "x"}, {"M": "x"}, {"M": True}])
def test_scalar_where_a_document_belongs_is_a_class_cast(value: Any) -> None:
    with pytest.raises(SerializationError, match=CAST):
        normalise({"a": value})


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        ({"S": ""}, {"S": ""}),
        ({"BOOL": "No"}, {"BOOL": False}),
        ({"BOOL": "1"}, {"BOOL": True}),
        ({"NULL": "true"}, {"NULL": True}),
        ({"B": ""}, {"B": ""}),
        ({"N": "+001.50"}, {"N": "1.5"}),
        ({"N": "1e3"}, {"N": "1000"}),
        ({"SS": ["b", "", "a"]}, {"SS": ["", "a", "b"]}),
        ({"NS": ["10", "9", "-1.0"]}, {"NS": ["-1", "9", "10"]}),
        ({"BS": ["AQ==", "AA=="]}, {"BS": ["AA==", "AQ=="]}),
        ({"S": "a", "X": 1}, {"S": "a"}),
        ({"S": "a", "N": None}, {"S": "a"}),
        ({"L": [{"N": "01"}]}, {"L": [{"N": "1"}]}),
        ({"M": {}}, {"M": {}}),
        ({"L": []}, {"L": []}),
    ],
)
def test_value_is_brought_into_normal_form(value: Any, normal: Any) -> None:
    attributes = {"a": value}
    normalise(attributes)
    assert attributes == {"a": normal}


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"S": "a"}
    for _ in range(levels - 1):
        value = {"L": [value]}
    return {"a": value}


def test_32_levels_are_enough_and_33_too_many() -> None:
    normalise(nested(32))
    with pytest.raises(ValidationError) as caught:
        normalise(nested(33))
    assert caught.value.message == (
        "Nesting Levels have exceeded supported limits: "
        "Attributes in the item have nested levels beyond supported limit"
    )


def test_name_may_have_65535_bytes() -> None:
    normalise({"é" * 32767 + "a": {"S": ""}})
    with pytest.raises(ValidationError, match="Attribute name is too large, must be less than 65536 bytes"):
        normalise({"é" * 32768: {"S": ""}})


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ({"p": {"S": "a"}}, 2),
        ({"é": {"S": "é"}}, 4),
        ({"p": {"B": "AAAA"}}, 4),
        ({"p": {"BOOL": False}}, 2),
        ({"p": {"NULL": True}}, 2),
        ({"p": {"L": []}}, 4),
        ({"p": {"M": {}}}, 4),
        ({"p": {"L": [{"S": "ab"}, {"BOOL": True}]}}, 1 + 3 + (1 + 2) + (1 + 1)),
        ({"p": {"M": {"xy": {"S": "ab"}}}}, 1 + 3 + (1 + 2 + 2)),
        ({"p": {"SS": ["a", "bc"]}}, 4),
        ({"p": {"BS": ["AA==", ""]}}, 2),
        ({"p": {"NS": ["1", "200"]}}, 1 + 2 + 2),
    ],
)
def test_size_is_counted_as_dynamodb_counts(attributes: dict[str, Any], size: int) -> None:
    assert normalise(attributes) == size


@pytest.mark.parametrize(
    ("number", "size"),
    [
        *(("0", 1), ("1", 2), ("-1", 3), ("10", 2), ("12", 2), ("123", 3), ("1.2", 3), ("12.34", 3), ("0.01", 2)),
        *(("0.1", 2), ("100", 2), ("1" * 38, 20), ("-" + "1" * 38, 21), ("1" + "0" * 125, 2)),
    ],
)
def test_number_takes_a_byte_for_two_digits_and_one_more(number: str, size: int) -> None:
    assert number_size(number) == size


numbers = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30, places=6).map(str)
binaries = st.binary(max_size=6).map(lambda data: base64.b64encode(data).decode())
texts = st.text(max_size=6)
scalars = st.one_of(
    texts.map(lambda text: {"S": text}),
    numbers.map(lambda text: {"N": text}),
    binaries.map(lambda text: {"B": text}),
    st.booleans().map(lambda value: {"BOOL": value}),
    st.just({"NULL": True}),
    st.lists(texts, min_size=1, max_size=4, unique=True).map(lambda members: {"SS": members}),
    st.lists(numbers, min_size=1, max_size=4, unique_by=Decimal).map(lambda members: {"NS": members}),
    st.lists(binaries, min_size=1, max_size=4, unique=True).map(lambda members: {"BS": members}),
)
names = st.text(min_size=1, max_size=5)
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda children: st.one_of(
        st.lists(children, max_size=3).map(lambda elements: {"L": elements}),
        st.dictionaries(names, children, max_size=3).map(lambda members: {"M": members}),
    ),
    max_leaves=8,
)


@settings(max_examples=100)
@given(st.dictionaries(names, values, max_size=4))
def test_normal_form_is_stable_and_survives_json(attributes: dict[str, Any]) -> None:
    size = normalise(attributes)
    again = orjson.loads(orjson.dumps(attributes))
    assert normalise(again) == size
    assert again == attributes


@settings(max_examples=100)
@given(st.dictionaries(names, values, max_size=4), names, values)
def test_size_is_the_sum_over_attributes(attributes: dict[str, Any], name: str, value: Any) -> None:
    attributes.pop(name, None)
    alone = normalise({name: copy.deepcopy(value)})
    together = normalise({**copy.deepcopy(attributes), name: copy.deepcopy(value)})
    assert together == normalise(attributes) + alone


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"L": [{"N": "1"}] * 150_000 + [{"N": "x"}]}, id="list"),
        pytest.param({"L": [{"L": [{"N": "1"}] * 1000}] * 150 + [{"N": "x"}]}, id="list of lists"),
        pytest.param({"M": {str(number): {"S": "s" * 1000} for number in range(410)} | {"x": {"N": "x"}}}, id="map"),
    ],
)
def test_what_is_larger_than_any_item_is_not_looked_into_to_its_end(value: dict[str, Any]) -> None:
    with pytest.raises(TooLargeError, match="Item size has exceeded the maximum allowed size"):
        normalise({"a": value})
