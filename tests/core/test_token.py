"""Tokens: Cassandra's, bit for bit."""

from __future__ import annotations

import mmh3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.core import token
from merganser.core.token import TOKEN_MAX, TOKEN_MIN, token_of

TOKENS_OF_THE_CQL_DRIVER = [
    # (key in hexadecimal, token): from the murmur3 of scylla-driver 3.29.12, where its C and its Python agree.
    ("", 0),
    ("313233", -7468325962851647638),
    ("61", -8839064797231613815),
    ("75736572233432", 2176311541432029109),
    ("54686520717569636b2062726f776e20666f78206a756d7073206f76657220746865206c617a7920646f67", -2068352364225029268),
    ("30313233343536373839616263646566", 5467490433528156583),
    ("e1", -7181548420279461177),
    ("80", -5284281814142962636),
    ("ff", -4442228696663692417),
    ("7f", 5072634478945617755),
    ("00", 5048724184180415669),
    ("00000000000000000000000000000000", 5457549051747178710),
    ("ffffffffffffffffffffffffffffffff", -2824192546314762522),
    ("ffffffffffffffffffffffffffffff", -2195530867418009455),
    ("ffffffffffffffffffffffffffffffffff", -4128212798341382003),
    ("456e7465", -1530062313510113138),
    ("53c3a4676572", 8449694096478396025),
    ("e382ace383b3e382abe383a2", 65257773868875436),
    ("f09fa686", -6960003531187527954),
    ("9e", 8893543658963726495),
    ("eb91", 1596219070982700857),
    ("b324ed", 5533014666742787771),
    ("12a3030f", -1150434245582968408),
    ("553433f5c0", -8420038208418682443),
    ("e5c11a793470", -2288765489442552459),
    ("738044b05effe4", 2486772289541747176),
    ("eef561fc1f0305f3", -6436502907592023315),
    ("051a5629fc95badf94", -5046678756310960926),
    ("5009bc6382f7fb83c163", 4559850635835332047),
    ("80f8d5acb18dfb2e9cf09e", 2661827250508277776),
    ("bd382b9585c721458ef14905", 3812186686142047056),
    ("33772567dc96645d383507a541", -5827820622055116179),
    ("15a93d207769ac54a2cc4076a05d", 1480653296895199439),
    ("028a9ad9ec9731189f5c58146be286", -8882909307064799056),
    ("32dcd7ff1bcae5e9df3670cd9845e300", 8269856098097040050),
    ("7030f302948afea391665b8a66a256843c", -1218578495899922653),
    ("dfa9ee63f1545816a08cd23210e4c09ee32d", 4264852070229012000),
    ("7f5e03b15a3a5beec41c23de6c5da0bbe629cd", -7596429032742136556),
    ("b06414c747c1614173830d2495d5db9bcd2bc993", 6761358470671534306),
    ("d05ff1bdf0c058e55441ca7b50984ca77d63e0463d", 2693459434367827510),
    ("795878bbef2286a5683381ced7783f77d35d21973f47", -367673082213256478),
    ("ce4c1474be598376f4caf0e18494c8cbf82341381805ad", 8544551738691222696),
    ("1ae75d01bde020e4caa3fcce5ed1490dbeba5f811ede07c9", -3393718674392061900),
    ("f3c95f32598f4084fd5e00c423e3c9b8fc0ef4d890c637718e", 8330112570994401854),
    ("a3ef23a1bbe22210a7c3adb443d6301d86b5db8d1a331ae96769", -754070412517966514),
    ("fbc6889733a740f3054855f7c4e24f039d6b7a1a57d79ec3238d5c", -5199428097064171165),
    ("efa709c78a2c7849b3fe662613493b4fcdc0fac2cf289a5ce240dbef", -281866851426005629),
    ("ab65f01f657692dad344ef26716db64ba0b9304fa3ff95a324d88dbb39", 7145137264118570067),
    ("05a6b006a6969a4ce8fa08b6191396eb0666601313a206eb5708e289380b", 7563116383841524728),
    ("b75fabb118387cc37cdb1f08e130b502ee6a32e8df9efc28bc20681d0427d7", -6109674645293048646),
    ("74c0390fe813f84eb5837916bc431c417e297de4b5a5ffadcb88f63a73394149", 383699389887849274),
    ("6e3cca972e58bf2c2f07e0fb42d221f5275d733e8b2d1cd5e1474a9e615ddec27d", -6728730751808521451),
    (
        "3e303e6856b688a67f3a4460e20b9af0a92f50d3d45b37fc4739868c81da324e4ec379403ebaf20e01d82551ec976b",
        8984342860436235547,
    ),
    (
        "d8310fdd9e96fefc8013c1ecc568c29a4fbacf350c41af5096b4d831e4d00584dee8788baf78655a175e01737fabcaf9ac3fa5ff1dbd518c5f9131943e7b9544",
        -1900708679074959188,
    ),
]

KEY_THAT_HASHES_TO_TOKEN_MIN = bytes.fromhex("ee961629b0b5ad1d319e18e83892dbed")
"""Found by running the hash backwards; the driver's raw hash of it is -2**63 too."""


@pytest.mark.parametrize(("key", "expected"), TOKENS_OF_THE_CQL_DRIVER)
def test_token_is_the_one_the_cql_drivers_compute(key: str, expected: int) -> None:
    assert token_of(bytes.fromhex(key)) == expected


@pytest.mark.parametrize(("key", "expected"), TOKENS_OF_THE_CQL_DRIVER)
def test_pure_python_alone_computes_the_token_of_the_cql_drivers(key: str, expected: int) -> None:
    assert token._hash_with_signed_tail(bytes.fromhex(key)) == expected


def test_lowest_hash_is_moved_to_the_highest_token_as_cassandra_does() -> None:
    assert mmh3.mmh3_x64_128_stupledigest(KEY_THAT_HASHES_TO_TOKEN_MIN, 0)[0] == TOKEN_MIN
    assert token_of(KEY_THAT_HASHES_TO_TOKEN_MIN) == TOKEN_MAX


@given(body=st.binary(max_size=80), tail=st.text(st.characters(max_codepoint=127), max_size=15))
def test_fast_and_slow_path_agree_when_the_tail_is_ascii(body: bytes, tail: str) -> None:
    key = body[: len(body) & ~15] + tail.encode()
    assert mmh3.mmh3_x64_128_stupledigest(key, 0)[0] == token._hash_with_signed_tail(key)


@given(key=st.binary(max_size=80))
def test_every_token_lies_above_the_lowest_and_on_the_ring(key: bytes) -> None:
    assert TOKEN_MIN < token_of(key) <= TOKEN_MAX


def test_sign_of_the_tail_matters() -> None:
    assert token_of(b"\xff") != mmh3.mmh3_x64_128_stupledigest(b"\xff", 0)[0]
