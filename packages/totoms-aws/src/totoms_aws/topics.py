"""From what a topic's secret holds to the topic's ARN."""

from __future__ import annotations

import threading

from totoms.errors import NotFound, Unsupported
from totoms_aws.clients import client
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.errors import told_as
from totoms_aws.names import TopicArn, is_topic_name, parse_topic


class Topics:
    """The topics of one bus. A secret holds a topic's ARN, or its bare name.

    A bare name is a topic of the caller's own account, in the configured region. Which account that is STS says, once;
    it needs no permission (https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html), as looking
    through the list of topics would. Nothing is created, and whether the topic exists SNS says when it is used.

    Args:
        settings: The region.
    """

    def __init__(self, settings: AWSConfiguration) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._account: tuple[str, str] | None = None

    def known(self, identifier: str) -> TopicArn | None:
        """Return the ARN; None where STS has to be asked first.

        Raises:
            NotFound: It is neither an ARN nor a name.
            Unsupported: The topic is in another region.
        """
        arn = parse_topic(identifier)
        if arn is None:
            if not is_topic_name(identifier):  # not told: perhaps it is the value of a wrong secret
                raise NotFound("What the topic's secret holds is neither the ARN of an SNS topic nor a name of one.")
            if self._account is None:
                return None
            partition, account = self._account
            return TopicArn(partition, self._settings.region, account, identifier)
        if arn.region != self._settings.region:
            raise Unsupported(
                f"The topic {identifier!r} is in another region than the service ({self._settings.region}).",
                resource=identifier,
            )
        return arn

    def resolve(self, identifier: str) -> TopicArn:
        """Return the ARN. It may block: call it in a thread.

        Raises:
            NotFound, Unsupported: As above.
            AccessDenied, Unavailable: STS cannot be asked.
        """
        found = self.known(identifier)
        if found is None:
            with self._lock:
                if self._account is None:
                    with told_as("the account of the topic", identifier):
                        caller = client("sts", self._settings).get_caller_identity()
                    self._account = caller["Arn"].split(":")[1], caller["Account"]
            found = self.known(identifier)
        assert found is not None
        return found
