"""Answers of a registry that are errors, with Confluent's codes (Schema Registry API reference, "Errors").

The HTTP status is the first three digits of the code: 40401 -> 404.
"""

from enum import IntEnum


class RegistryErrorCode(IntEnum):
    """Confluent's `error_code` values that this registry answers with."""

    UNAUTHORIZED = 401
    OPERATION_DENIED = 40301
    SUBJECT_NOT_FOUND = 40401
    VERSION_NOT_FOUND = 40402
    SCHEMA_NOT_FOUND = 40403
    SUBJECT_SOFT_DELETED = 40404
    SUBJECT_NOT_SOFT_DELETED = 40405
    VERSION_SOFT_DELETED = 40406
    VERSION_NOT_SOFT_DELETED = 40407
    SUBJECT_COMPATIBILITY_NOT_FOUND = 40408
    SUBJECT_MODE_NOT_FOUND = 40409
    INCOMPATIBLE_SCHEMA = 409
    BODY_TOO_LARGE = 413
    INVALID_SCHEMA = 42201
    INVALID_VERSION = 42202
    INVALID_COMPATIBILITY = 42203
    INVALID_MODE = 42204
    OPERATION_NOT_PERMITTED = 42205
    INVALID_SUBJECT = 42208
    STORE_FAILED = 50001


class RegistryError(Exception):
    """An error answer: code and message as the HTTP body carries them."""

    def __init__(self, code: RegistryErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        """The HTTP status of the answer."""
        return self.code if self.code < 1000 else self.code // 100
