"""How a request to a consumer group is refused."""

from tailrace.broker.protocol import ErrorCode


class GroupRefusal(Exception):
    """The request is refused; the client is told the code and the text."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code
