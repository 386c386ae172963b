"""A look at the server before (and after) the SuperNode talks to it: what TLS refuses, and what the answer tells.

Nothing is sent on a connection that was not verified.
"""

import http.client
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from client.node_file import NodeFile
from deployment.certificates import check_server, utc_now
from deployment.fleet import parse_address
from deployment.serve.nginx import FLOWER_HEADER
from personalization.errors import UserError

TIMEOUT_SECONDS = 10.0
# flwr 1.41 takes a node's signature that is between 305 seconds old and 5 seconds from the future; a margin is left
# for the answer's way and its header, which counts whole seconds.
_AHEAD_SECONDS, _BEHIND_SECONDS = 4.0, 300.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the server said. clock_ahead: seconds that this device's clock is ahead of it; None, what it didn't say."""

    clock_ahead: float | None
    flower: str | None

    def clock_line(self) -> str | None:
        """Return a line that says that the clocks are too far apart, None if they are not."""
        if self.clock_ahead is None or -_BEHIND_SECONDS <= self.clock_ahead <= _AHEAD_SECONDS:
            return None
        way = "ahead of" if self.clock_ahead > 0 else "behind"
        return (
            f"this device's clock is {abs(self.clock_ahead):.0f} s {way} the server's, which refuses devices that are "
            "more than 5 s ahead or 300 s behind; set the clock (timedatectl set-ntp true)"
        )

    def check_flower(self, own: str) -> None:
        """Raise UserError if the server runs another minor version of Flower than `own`."""
        if self.flower is not None and _minor(self.flower) != _minor(own):
            raise UserError(version_line(own, self.flower))


@dataclass(frozen=True)
class Unreachable:
    """The server did not answer; reason: in a few words."""

    reason: str


def ask_server(node: NodeFile, *, timeout: float = TIMEOUT_SECONDS) -> Answer | Unreachable:
    """Connect to the server of a node file as its SuperNode will, and return what it answers.

    Raises UserError for a connection that stays refused until somebody does something: certificates out of date, of
    another authority or for another name, or a port that does not speak TLS.
    """
    host, port = parse_address(node.server)
    check_authority(node)
    context = ssl.create_default_context(cadata=node.authority)
    connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    try:
        connection.request("GET", "/v1/fleet", headers={"Connection": "close"})
        asked = datetime.now(UTC)
        return _answer(connection.getresponse(), asked)
    except ssl.SSLCertVerificationError as error:
        raise _explain(error, node, timeout) from error
    except ssl.SSLError as error:
        if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"):
            raise UserError(
                f"{node.server}: what answers there does not speak TLS; see which port the server listens on"
            ) from error
        return Unreachable(f"the connection broke off ({error.reason or error})")
    except TimeoutError:
        return Unreachable(f"no answer within {timeout:.0f} s")
    except (OSError, http.client.HTTPException) as error:
        return Unreachable(getattr(error, "strerror", None) or str(error) or type(error).__name__)
    finally:
        connection.close()


def check_authority(node: NodeFile, *, now: datetime | None = None) -> None:
    """Raise UserError if the authority's certificate in a node file is out of date."""
    authority, now = _authority(node), now or utc_now()
    if not authority.not_valid_before_utc <= now <= authority.not_valid_after_utc:
        raise UserError(
            f"the authority's certificate in the node file is valid from {authority.not_valid_before_utc:%Y-%m-%d} to "
            f"{authority.not_valid_after_utc:%Y-%m-%d} and it is {now:%Y-%m-%d}; set this device's clock, or on the "
            "server: fedsieve enroll FLEET --renew authority, and carry the node file again"
        )


def own_flower() -> str:
    """Return the version of Flower on this device."""
    return version("flwr")


def version_line(own: str, server: str | None) -> str:
    """Return the line for ends that run different minor versions of Flower."""
    known = "" if server is None else f" {server}"
    wanted = "" if server is None else f": pip install 'flwr=={server}' here, or fedsieve of one version on both"
    return f"Flower {own} on this device and another version{known} on the server do not fit{wanted or '; install one'}"


def _answer(response: http.client.HTTPResponse, asked: datetime) -> Answer:
    try:
        said = parsedate_to_datetime(response.headers["Date"])
        ahead = (asked - said).total_seconds()
    except (TypeError, ValueError):
        ahead = None
    # The header counts whole seconds, so half a second is what it lies behind on average.
    return Answer(clock_ahead=None if ahead is None else ahead - 0.5, flower=response.headers.get(FLOWER_HEADER))


def _explain(error: ssl.SSLCertVerificationError, node: NodeFile, timeout: float) -> UserError:
    """Return the error that says which of the reasons it was, from the certificate that the server shows."""
    at = f"{node.server}: "
    try:
        shown = _shown_certificate(node, timeout)
    except (OSError, ValueError):
        return UserError(f"{at}the server's certificate is refused ({error.verify_message})")
    try:
        shown.verify_directly_issued_by(_authority(node))
    except (InvalidSignature, ValueError, TypeError):
        return UserError(
            f"{at}the server's certificate is of another authority than the node file's: another server answers "
            "there, or the fleet was made anew; carry the node file that its `fedsieve enroll` wrote here"
        )
    try:
        check_server(shown, _authority(node), parse_address(node.server)[0], now=utc_now())
    except UserError as found:
        return UserError(f"{at}{found}")
    return UserError(f"{at}the server's certificate is refused ({error.verify_message})")


def _shown_certificate(node: NodeFile, timeout: float) -> x509.Certificate:
    host, port = parse_address(node.server)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, port), timeout=timeout) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
    ):
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")


def _authority(node: NodeFile) -> x509.Certificate:
    return x509.load_pem_x509_certificate(node.authority.encode())


def _minor(text: str) -> list[str]:
    return text.strip().split(".")[:2]
