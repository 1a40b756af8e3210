"""The DynamoDB expression language, pure."""
