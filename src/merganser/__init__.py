"""Merganser: a Dynamo-style distributed database that unmodified DynamoDB clients talk to."""

__version__ = "0.1.0"
