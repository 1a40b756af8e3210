"""Asyncio shells around the core: replica, coordinator, catalog."""
