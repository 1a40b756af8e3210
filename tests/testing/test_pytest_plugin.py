"""The fixtures as somebody's own tests meet them, in a pytest of their own."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.process

OTHERS = ("-p", "no:xdist", "-p", "no:hypothesispytest")
"""Plugins that only take time here."""
TESTS = """
import os, signal
import boto3, pytest

ENDPOINTS = set()

def make(client):
    client.create_table(
        TableName="ducks", BillingMode="PAY_PER_REQUEST", DeletionProtectionEnabled=True,
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}])

@pytest.mark.parametrize("number", range(3))
def test_starts_with_nothing(merganser, number):
    client = boto3.client("dynamodb", **merganser.client_settings)
    assert client.list_tables()["TableNames"] == []
    make(client)
    ENDPOINTS.add(merganser.endpoint_url)

@pytest.mark.parametrize("is_there", [False, True])
def test_keeps_what_is_there_if_asked_for_by_its_other_name(merganser_server, is_there):
    client = boto3.client("dynamodb", **merganser_server.client_settings)
    assert client.list_tables()["TableNames"] == ["ducks"] * is_there
    is_there or make(client)

def test_is_led_there_by_its_environment(merganser_environment):
    make(boto3.client("dynamodb"))
    ENDPOINTS.add(boto3.client("dynamodb").meta.endpoint_url)

def test_kills_it(merganser):
    os.kill(merganser.pid, signal.SIGKILL)

def test_after_that(merganser):
    make(boto3.client("dynamodb", **merganser.client_settings))
    assert {merganser.endpoint_url} == ENDPOINTS
"""
UNUSED = """
import sys

def test_nothing_was_loaded():
    assert "merganser.testing.pytest_plugin" in sys.modules
    assert not {"merganser.testing.server", "merganser.node", "asyncio", "http.client", "msgspec"} & set(sys.modules)
"""
DELAYED = """
import boto3

def test_tables_take_their_time(merganser_environment):
    client = boto3.client("dynamodb")
    client.create_table(
        TableName="ducks", BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}])
    assert client.describe_table(TableName="ducks")["Table"]["TableStatus"] == "CREATING"
"""


def test_each_test_has_a_clean_slate_and_the_one_that_ends_the_server_is_told(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    run = pytester.runpytest_subprocess(*OTHERS)
    run.assert_outcomes(passed=8, errors=1)
    run.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_kills_it*",
            "*ServerError: the Merganser for tests has ended by signal 9; the end of its log:*",
            '*"event":"ready"*',
        ]
    )


def test_the_plugin_loads_nothing_before_it_is_used(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(UNUSED)
    pytester.runpytest_subprocess(*OTHERS).assert_outcomes(passed=1)


def test_the_table_delay_comes_from_the_command_line_or_the_configuration(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(DELAYED)
    pytester.runpytest_subprocess(*OTHERS).assert_outcomes(failed=1)
    pytester.runpytest_subprocess(*OTHERS, "--merganser-table-delay-ms", "3600000").assert_outcomes(passed=1)
    pytester.makeini("[pytest]\nmerganser_table_delay_ms = 3600000")
    pytester.runpytest_subprocess(*OTHERS).assert_outcomes(passed=1)
    pytester.runpytest_subprocess(*OTHERS, "--merganser-table-delay-ms", "0").assert_outcomes(failed=1)
    pytester.makeini("[pytest]\nmerganser_table_delay_ms = a while")
    run = pytester.runpytest_subprocess(*OTHERS)
    run.assert_outcomes(errors=1)
    run.stdout.fnmatch_lines(["*merganser_table_delay_ms is a number of milliseconds, not 'a while'*"])
