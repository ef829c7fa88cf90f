"""SaslHandshake (17), SaslAuthenticate (36), and SCRAM users (50, 51)."""

from tailrace.broker.protocol.fields import array, binary, int8, int16, int32, int64, message, string


@message
class SaslHandshakeRequest:
    """Chooses the mechanism; never flexible."""

    mechanism: str = string()


@message
class SaslHandshakeResponse:
    """The mechanisms that the broker offers."""

    error_code: int = int16()
    mechanisms: list[str] = array("string")


@message
class SaslAuthenticateRequest:
    """One step of the mechanism's exchange."""

    auth_bytes: bytes = binary()


@message
class SaslAuthenticateResponse:
    """v1 says for how long the session holds (KIP-368)."""

    error_code: int = int16()
    error_message: str | None = string(nullable="0+")
    auth_bytes: bytes = binary()
    session_lifetime_ms: int = int64("1+")


@message
class ScramUserName:
    name: str = string()


@message
class DescribeUserScramCredentialsRequest:
    """users null or empty means all (KIP-554)."""

    users: list[ScramUserName] | None = array(ScramUserName, nullable="0+")


@message
class ScramCredentialInfo:
    mechanism: int = int8()
    iterations: int = int32()


@message
class DescribeUserScramCredentialsResult:
    user: str = string()
    error_code: int = int16()
    error_message: str | None = string(nullable="0+")
    credential_infos: list[ScramCredentialInfo] = array(ScramCredentialInfo)


@message
class DescribeUserScramCredentialsResponse:
    """mechanism: 1 SCRAM-SHA-256, 2 SCRAM-SHA-512."""

    throttle_time_ms: int = int32()
    error_code: int = int16()
    error_message: str | None = string(nullable="0+")
    results: list[DescribeUserScramCredentialsResult] = array(DescribeUserScramCredentialsResult)


@message
class ScramCredentialDeletion:
    name: str = string()
    mechanism: int = int8()


@message
class ScramCredentialUpsertion:
    name: str = string()
    mechanism: int = int8()
    iterations: int = int32()
    salt: bytes = binary()
    salted_password: bytes = binary()


@message
class AlterUserScramCredentialsRequest:
    """Carries salted passwords, never plain ones."""

    deletions: list[ScramCredentialDeletion] = array(ScramCredentialDeletion)
    upsertions: list[ScramCredentialUpsertion] = array(ScramCredentialUpsertion)


@message
class AlterUserScramCredentialsResult:
    user: str = string()
    error_code: int = int16()
    error_message: str | None = string(nullable="0+")


@message
class AlterUserScramCredentialsResponse:
    """One error per user."""

    throttle_time_ms: int = int32()
    results: list[AlterUserScramCredentialsResult] = array(AlterUserScramCredentialsResult)
