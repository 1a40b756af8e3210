"""The DynamoDB front door: JSON 1.0 over HTTP/1.1."""
