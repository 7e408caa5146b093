"""What is a server's address. Needs no extra, unlike a request to it."""


def is_address(name: str | None) -> bool:
    """Whether this names a server, not a folder or a Hub id."""
    return name is not None and name.lower().startswith(("http://", "https://"))
