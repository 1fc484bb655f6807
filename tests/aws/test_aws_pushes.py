"""Pushes of SNS: what is specific to SNS, and so not in the contract."""

from __future__ import annotations

import asyncio
import base64
import http.server
import json
import queue
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from standins.aws.errors import FaultyAWS
from standins.aws.sns_certificates import CertificateServer
from standins.aws.sns_push import PushingSNS, body_of, make_signer
from support.aws import kit as aws_kit
from support.aws.messages import BusOfTests, make_topic
from support.aws.push import HOST, Clock, signer, use_clock
from support.http.connections import connections
from totoms.errors import BackendError, Forbidden, NotFound, Unauthorized, Undecidable
from totoms.messages.dead_letters import DeadLetterReason
from totoms.messages.message import ID_ATTRIBUTE, TRACEPARENT_ATTRIBUTE
from totoms.messages.push.attempts import delivery_key
from totoms.messages.push_request import PushReply, PushRequest
from totoms.messages.receiver import Received
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.messages import signatures

PATH = "/SimpleNotificationService-" + "0123456789abcdef" * 2 + ".pem"


@pytest.fixture
def certificates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[CertificateServer]:
    with CertificateServer(HOST, tmp_path) as server:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def behind(faults: FaultyAWS) -> FaultyAWS:
    return faults


@pytest.fixture
def aws_settings(
    monkeypatch: pytest.MonkeyPatch, certificates: CertificateServer, behind: FaultyAWS
) -> Iterator[AWSConfiguration]:
    with aws_kit.settings(monkeypatch, behind.address) as configuration:
        monkeypatch.setenv("AWS_CA_BUNDLE", certificates.variables["AWS_CA_BUNDLE"])
        yield configuration


@pytest.fixture
def sns(aws_settings: AWSConfiguration, certificates: CertificateServer) -> PushingSNS:
    return PushingSNS(make_topic(aws_settings), certificates, signer())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def bus(aws_settings: AWSConfiguration, sns: PushingSNS, clock: Clock) -> AsyncIterator[BusOfTests]:
    made = BusOfTests(aws_kit.environment(aws_settings), {"posts": sns.topic})
    use_clock(made, clock)
    yield made
    await made.close()


class Endpoint:
    """Where ministack sends its own, unsigned confirmation: of it comes a token that it takes."""

    def __init__(self) -> None:
        self.came: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        came = self.came

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                came.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/events"

    def __enter__(self) -> Endpoint:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


async def push(bus: BusOfTests, sns: PushingSNS, message: dict[str, Any]) -> Any:
    headers = sns.headers({"Type": "Notification", "MessageId": "an-id", "TopicArn": sns.topic, **message})
    return await bus._accept_push(PushRequest(headers, body_of(message), "https://service.example/events"))


async def one(bus: BusOfTests, sns: PushingSNS, message: dict[str, Any]) -> Received:
    (received,) = await push(bus, sns, message)
    return received


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("subject", [None, "", "a subject", "Zwei Bücher"])
async def test_signed_notification_is_taken(
    bus: BusOfTests, sns: PushingSNS, version: str, subject: str | None
) -> None:
    received = await one(bus, sns, sns.notification("a body 📚", version=version, Subject=subject))
    assert received.body == "a body 📚".encode()


@pytest.mark.parametrize("name", ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"])
@pytest.mark.parametrize("version", ["1", "2"])
async def test_signed_field_that_was_changed_is_refused(
    bus: BusOfTests, sns: PushingSNS, name: str, version: str
) -> None:
    message = sns.notification("a body", version=version, Subject="s")
    changed = {
        "Message": "another body",
        "MessageId": "another",
        "Subject": "t",
        "TopicArn": sns.topic + "-2",
        "Type": "UnsubscribeConfirmation",
        "Timestamp": (datetime.now(UTC) - timedelta(minutes=1)).isoformat(),
    }
    with pytest.raises(Forbidden):
        await push(bus, sns, {**message, name: changed[name]})
    with pytest.raises(Forbidden):
        await push(bus, sns, {key: value for key, value in message.items() if key != name})


async def test_subject_that_was_added_is_refused(bus: BusOfTests, sns: PushingSNS) -> None:
    with pytest.raises(Forbidden):
        await push(bus, sns, {**sns.notification("a body"), "Subject": "added"})


@pytest.mark.parametrize("version", ["0", "3", "", "1.0", " 1", 1, 2, None, ["1"], {"1": "2"}])
@pytest.mark.parametrize("signed", ["1", "2"])
async def test_unknown_version_of_signatures_is_refused(
    bus: BusOfTests, sns: PushingSNS, certificates: CertificateServer, signed: str, version: Any
) -> None:
    with pytest.raises(Forbidden):
        await push(bus, sns, {**sns.notification("a body", version=signed), "SignatureVersion": version})
    assert certificates.asked == []  # nor is a certificate fetched for it


async def test_version_is_not_taken_for_the_other_one(bus: BusOfTests, sns: PushingSNS) -> None:
    for signed, told in (("1", "2"), ("2", "1")):
        with pytest.raises(Forbidden):
            await push(bus, sns, {**sns.notification("a body", version=signed), "SignatureVersion": told})


@pytest.mark.parametrize(
    "change", [lambda text: text[:-4], lambda text: text + "!", lambda text: "AAAA", lambda _: "é"]
)
async def test_invalid_signature_is_refused(bus: BusOfTests, sns: PushingSNS, change: Any) -> None:
    message = sns.notification("a body")
    with pytest.raises(Forbidden):
        await push(bus, sns, {**message, "Signature": change(message["Signature"])})


REFUSED_URLS = {
    "http": f"http://{HOST}{PATH}",
    "no scheme": f"//{HOST}{PATH}",
    "another scheme": f"ftp://{HOST}{PATH}",
    "a file": f"file://{HOST}{PATH}",
    "scheme in capitals": f"HTTPS://{HOST}{PATH}",
    "a port": f"https://{HOST}:8443{PATH}",
    "its own port": f"https://{HOST}:443{PATH}",
    "a user": f"https://me@{HOST}{PATH}",
    "a user that looks like the host": f"https://{HOST}@evil.example{PATH}",
    "a user and a password": f"https://me:pw@{HOST}{PATH}",
    "a backslash for the path": f"https://evil.example\\@{HOST}{PATH}",
    "a backslash behind the host": f"https://{HOST}\\{PATH}",
    "another host": f"https://evil.example{PATH}",
    "host as the beginning of another": f"https://{HOST}.evil.example{PATH}",
    "host as the end of another": f"https://evil{HOST}{PATH}",
    "host below another": f"https://{HOST}.cn.evil.example{PATH}",
    "amazonaws.com of somebody else": f"https://sns.{aws_kit.REGION}.amazonaws.com.co{PATH}",
    "China's, for a topic that is not there": f"https://{HOST}.cn{PATH}",
    "another dot": f"https://sns.{aws_kit.REGION}-amazonaws.com{PATH}",
    "any letter for the dot": f"https://snsx{aws_kit.REGION}.amazonaws.com{PATH}",
    "a full stop behind the host": f"https://{HOST}.{PATH}",
    "host in capitals": f"https://{HOST.upper()}{PATH}",
    "letters that look alike": f"https://sn\u0455.{aws_kit.REGION}.amazonaws.com{PATH}",
    "letters of full width": f"https://\uff53ns.{aws_kit.REGION}.amazonaws.com{PATH}",
    "letters that look alike, encoded": f"https://xn--sn-oed.{aws_kit.REGION}.amazonaws.com{PATH}",
    "an encoded full stop": f"https://sns%2e{aws_kit.REGION}.amazonaws.com{PATH}",
    "a null in the host": f"https://evil.example\0.{HOST}{PATH}",
    "three slashes": f"https:///{HOST}{PATH}",
    "one slash": f"https:/{HOST}{PATH}",
    "a port that is none": f"https://{HOST}:{PATH}",
    "an address as a number": f"https://2130706433{PATH}",
    "another service's host below": f"https://sns.{aws_kit.REGION}.vpce.amazonaws.com{PATH}",
    "digits that are none of ASCII": f"https://{HOST}{PATH.replace('0', chr(0x0660))}",
    "an ideographic full stop": f"https://sns\u3002{aws_kit.REGION}.amazonaws.com{PATH}",
    "another region": f"https://sns.us-east-1.amazonaws.com{PATH}",
    "no region": f"https://sns.amazonaws.com{PATH}",
    "another service": f"https://sqs.{aws_kit.REGION}.amazonaws.com{PATH}",
    "a bucket": f"https://s3.{aws_kit.REGION}.amazonaws.com{PATH}",
    "a bucket called sns": f"https://sns.s3.{aws_kit.REGION}.amazonaws.com{PATH}",
    "a bucket's website": f"https://sns.{aws_kit.REGION}.s3.amazonaws.com{PATH}",
    "an address": f"https://127.0.0.1{PATH}",
    "the address of a machine's own data": f"https://169.254.169.254{PATH}",
    "an address of version 6": f"https://[::1]{PATH}",
    "another name": f"https://{HOST}/other.pem",
    "no .pem": f"https://{HOST}{PATH.removesuffix('.pem')}",
    "more behind .pem": f"https://{HOST}{PATH}.txt",
    "capitals in the path": f"https://{HOST}{PATH.upper()}",
    "a folder before": f"https://{HOST}/x{PATH}",
    "a folder behind": f"https://{HOST}{PATH}/x.pem",
    "a way up": f"https://{HOST}/x/..{PATH}",
    "a way up, encoded": f"https://{HOST}/%2e%2e{PATH}",
    "an encoded slash": f"https://{HOST}/x%2f..{PATH}",
    "an encoded letter": f"https://{HOST}{PATH.replace('Simple', '%53imple')}",
    "two slashes": f"https://{HOST}/{PATH}",
    "a query": f"https://{HOST}{PATH}?x=1",
    "an empty query": f"https://{HOST}{PATH}?",
    "a query that is the path": f"https://{HOST}/?Action=Get&x={PATH}",
    "a fragment": f"https://{HOST}{PATH}#x",
    "parameters": f"https://{HOST}{PATH};x=1",
    "a space before": f" https://{HOST}{PATH}",
    "a space behind": f"https://{HOST}{PATH} ",
    "a new line behind": f"https://{HOST}{PATH}\n",
    "a new line inside": f"https://{HOST}\r\n{PATH}",
    "a null": f"https://{HOST}{PATH}\0",
    "a tab": f"https://{HOST}\t{PATH}",
    "no digest": f"https://{HOST}/SimpleNotificationService-.pem",
    "a digest of other letters": f"https://{HOST}/SimpleNotificationService-xyz.pem",
    "an endless digest": f"https://{HOST}/SimpleNotificationService-{'0' * 5000}.pem",
    "nothing": "",
}


@pytest.mark.parametrize("url", REFUSED_URLS.values(), ids=REFUSED_URLS)
async def test_certificate_is_fetched_from_nowhere_else(
    bus: BusOfTests, sns: PushingSNS, certificates: CertificateServer, url: str
) -> None:
    message = {**sns.notification("a body"), "SigningCertURL": url}
    with connections() as made, pytest.raises(Forbidden):
        await push(bus, sns, message)
    assert (made, certificates.tunnels, certificates.asked) == ([], [], [])


async def test_connection_for_a_certificate_is_seen(
    bus: BusOfTests, sns: PushingSNS, certificates: CertificateServer
) -> None:
    with connections() as made:
        await push(bus, sns, sns.notification("a body"))
    assert made != []


def test_list_of_refused_urls_is_long_enough() -> None:
    assert len(set(REFUSED_URLS.values())) == len(REFUSED_URLS) >= 25


@pytest.mark.parametrize("url", [None, 7, ["https://x"], {}])
async def test_certificate_without_an_address_is_refused(bus: BusOfTests, sns: PushingSNS, url: Any) -> None:
    with pytest.raises(Unauthorized):
        await push(bus, sns, {**sns.notification("a body"), "SigningCertURL": url})


async def test_certificate_is_fetched_once_for_all(
    bus: BusOfTests, sns: PushingSNS, certificates: CertificateServer
) -> None:
    for number in range(5):
        await one(bus, sns, sns.notification(f"body {number}"))
    assert certificates.asked == [sns.signer.path]


async def test_redirect_of_the_certificate_is_not_followed(
    bus: BusOfTests, sns: PushingSNS, certificates: CertificateServer
) -> None:
    certificates.pages["/elsewhere"] = 200, sns.signer.pem
    certificates.pages[sns.signer.path] = 302, f"https://{HOST}/elsewhere".encode()
    with pytest.raises(Undecidable):
        await push(bus, sns, sns.notification("a body"))
    assert certificates.asked == [sns.signer.path]


UNFIT = {
    "missing": (404, b""),
    "failing": (500, b""),
    "no certificate": (200, b"nothing of the kind"),
    "an endless one": (200, b"-----BEGIN CERTIFICATE-----\n" + b"A" * 100_000),
}


@pytest.mark.parametrize("answer", UNFIT.values(), ids=UNFIT)
async def test_certificate_that_cannot_be_had_leaves_it_open(
    bus: BusOfTests, sns: PushingSNS, certificates: CertificateServer, clock: Clock, answer: tuple[int, bytes]
) -> None:
    genuine = certificates.pages[sns.signer.path]
    certificates.pages[sns.signer.path] = answer
    with pytest.raises(Undecidable):
        await push(bus, sns, sns.notification("a body"))
    certificates.pages[sns.signer.path] = genuine
    with pytest.raises(Undecidable):  # it is not asked for again at once, however much is pushed
        await push(bus, sns, sns.notification("a body"))
    assert certificates.asked == [sns.signer.path]
    clock.now += 60
    assert (await one(bus, sns, sns.notification("a body"))).body == b"a body"


FORGED = {
    "made out to somebody else": {"name": "evil.example"},
    "made out to one whose name begins like SNS's": {"name": "sns.amazonaws.com.evil.example"},
    "SNS's name, and somebody else's beside": {"name": "sns.amazonaws.com", "alternatives": ("evil.example",)},
    "expired": {"until": timedelta(seconds=-1)},
    "not valid yet": {"since": timedelta(days=1)},
    "of a short key": {"bits": 1024},
}


@pytest.mark.parametrize("made", FORGED.values(), ids=FORGED)
async def test_certificate_that_is_not_snss_is_not_believed(
    bus: BusOfTests, sns: PushingSNS, certificates: CertificateServer, made: dict[str, Any]
) -> None:
    other = PushingSNS(sns.topic, certificates, make_signer(**made))
    with pytest.raises(Undecidable):
        await push(bus, other, other.notification("a body"))


async def test_certificate_over_a_connection_that_is_not_trusted_is_not_believed(
    bus: BusOfTests, sns: PushingSNS, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with CertificateServer("elsewhere.example", tmp_path) as other:
        monkeypatch.setenv("AWS_CA_BUNDLE", other.variables["AWS_CA_BUNDLE"])
        with pytest.raises(Undecidable):
            await push(bus, sns, sns.notification("a body"))


async def test_certificates_that_are_kept_are_few(
    bus: BusOfTests,
    sns: PushingSNS,
    certificates: CertificateServer,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signatures, "_MAX_KEPT", 16)
    for number in range(40):
        path = f"/SimpleNotificationService-{number:032x}.pem"
        certificates.pages[path] = 200, sns.signer.pem
        await one(bus, sns, {**sns.notification("a body"), "SigningCertURL": f"https://{HOST}{path}"})
    assert len(bus._push_receiver._certificates._certificates) == 16


async def test_confirmation_is_by_the_api_and_its_url_is_not_fetched(
    bus: BusOfTests, sns: PushingSNS, certificates: CertificateServer, behind: FaultyAWS
) -> None:
    confirming = behind.rule(matches=lambda request: request.operation == "ConfirmSubscription", status=400, code="X")
    with pytest.raises(BackendError):
        await push(bus, sns, sns.confirmation("the-token"))
    (request,) = confirming.seen
    assert b"Token=the-token" in request.body
    assert b"AuthenticateOnUnsubscribe=true" in request.body
    assert certificates.tunnels == [f"{HOST}:443"]  # for the certificate


async def test_subscription_is_confirmed(aws_settings: AWSConfiguration, bus: BusOfTests, sns: PushingSNS) -> None:
    client = aws_kit.sdk("sns", aws_settings)
    with Endpoint() as endpoint:
        client.subscribe(TopicArn=sns.topic, Protocol="http", Endpoint=endpoint.address)
        token = (await asyncio.to_thread(endpoint.came.get, timeout=120))["Token"]
        assert await push(bus, sns, sns.confirmation(token)) == PushReply(
            body={"status": "confirmed"}, subscribed="posts"
        )
    (made,) = client.list_subscriptions_by_topic(TopicArn=sns.topic)["Subscriptions"]
    assert made["SubscriptionArn"].startswith(sns.topic)


@pytest.mark.parametrize("change", ["Token", "SubscribeURL", "Message", "Timestamp"])
async def test_confirmation_that_was_changed_is_refused(
    bus: BusOfTests, sns: PushingSNS, behind: FaultyAWS, change: str
) -> None:
    asked = behind.rule(matches=lambda request: request.operation == "ConfirmSubscription")
    with pytest.raises(Forbidden):
        await push(bus, sns, {**sns.confirmation("a-token"), change: datetime.now(UTC).isoformat()})
    assert asked.seen == []


async def test_confirmation_for_another_topic_is_refused(
    bus: BusOfTests, sns: PushingSNS, certificates: CertificateServer, behind: FaultyAWS
) -> None:
    asked = behind.rule(matches=lambda request: request.operation == "ConfirmSubscription")
    other = PushingSNS(f"arn:aws:sns:{aws_kit.REGION}:666666666666:posts", certificates, signer())
    with pytest.raises(Forbidden):
        await push(bus, other, other.confirmation("a-token"))
    assert (asked.seen, certificates.tunnels) == ([], [])


async def test_end_of_a_subscription_is_noticed_and_not_undone(
    bus: BusOfTests, sns: PushingSNS, behind: FaultyAWS
) -> None:
    asked = behind.rule(matches=lambda request: request.operation == "ConfirmSubscription")
    reply = await push(bus, sns, sns.confirmation("a-token", kind="UnsubscribeConfirmation"))
    assert reply == PushReply(body={"status": "ignored"})
    assert asked.seen == []


async def test_headers_decide_nothing(bus: BusOfTests, sns: PushingSNS) -> None:
    message = sns.notification("a body")
    headers = {"x-amz-sns-message-type": "SubscriptionConfirmation", "x-amz-sns-topic-arn": "arn:aws:sns:x:1:y"}
    for given in (headers, {}):
        (received,) = await bus._accept_push(PushRequest(given, body_of(message), "https://service.example/events"))
        assert received.body == b"a body"


@pytest.mark.parametrize("old", [timedelta(hours=7), timedelta(minutes=-16)], ids=["old", "of the future"])
async def test_push_of_another_time_is_refused(bus: BusOfTests, sns: PushingSNS, old: timedelta) -> None:
    told = (datetime.now(UTC) - old).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    with pytest.raises(Forbidden):
        await push(bus, sns, sns.notification("a body", Timestamp=told))


NO_MESSAGES = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a text": b'"x"',
    "null": b"null",
    "deep": b"[" * 100_000,
    "not UTF-8": b'{"Type": "\xff"}',
    "a number too long": b'{"Type": ' + b"9" * 5_000 + b"}",
}


@pytest.mark.parametrize("body", NO_MESSAGES.values(), ids=NO_MESSAGES)
async def test_what_is_not_a_message_of_sns_is_refused(bus: BusOfTests, sns: PushingSNS, body: bytes) -> None:
    with pytest.raises(Unauthorized):
        await bus._accept_push(PushRequest({}, body, "https://service.example/events"))


async def test_text_that_is_not_utf_8_is_refused(bus: BusOfTests, sns: PushingSNS) -> None:
    message = {**sns.notification("a body"), "Message": "\ud800"}
    with pytest.raises((Unauthorized, Forbidden)):
        await bus._accept_push(PushRequest({}, json.dumps(message).encode(), "https://service.example/events"))


async def test_raw_delivery_is_refused_since_it_is_not_signed(bus: BusOfTests, sns: PushingSNS) -> None:
    headers = {**sns.headers(sns.notification("x")), "x-amz-sns-rawdelivery": "true"}
    with pytest.raises((Unauthorized, Forbidden)):
        await bus._accept_push(PushRequest(headers, b'{"type": "posted"}', "https://service.example/events"))


async def test_push_that_is_too_large_is_refused_before_it_is_parsed(bus: BusOfTests) -> None:
    with pytest.raises(Forbidden):
        await bus._accept_push(PushRequest({}, b" " * (2 * 1024 * 1024 + 1), "https://service.example/events"))


async def test_message_id_and_trace_come_with_the_attributes(bus: BusOfTests, sns: PushingSNS) -> None:
    message = sns.notification("a body", {ID_ATTRIBUTE: "an-id", "traceparent": "00-1-2-01"})
    message["MessageAttributes"]["binary"] = {"Type": "Binary", "Value": base64.b64encode(b"x").decode()}
    message["MessageAttributes"]["odd"] = "no attribute"
    received = await one(bus, sns, message)
    assert (received.message_id, received.attributes["traceparent"]) == ("an-id", "00-1-2-01")
    assert "binary" not in received.attributes
    assert "odd" not in received.attributes


async def test_topic_given_by_its_bare_name_is_known_by_its_arn(
    aws_settings: AWSConfiguration, sns: PushingSNS, certificates: CertificateServer, behind: FaultyAWS
) -> None:
    name = sns.topic.rpartition(":")[2]
    bus = BusOfTests(aws_kit.environment(aws_settings), {"posts": name})
    try:
        assert (await one(bus, sns, sns.notification("a body"))).body == b"a body"
        other = PushingSNS(f"arn:aws:sns:{aws_kit.REGION}:666666666666:{name}", certificates, signer())
        with pytest.raises(Forbidden):
            await push(bus, other, other.notification("a body"))
        assert json.loads(body_of(other.notification("x")))["TopicArn"] != sns.topic
    finally:
        await bus.close()


async def test_dead_letters_of_an_endpoint_that_the_operator_subscribed_go_to_a_queue_of_his(
    bus: BusOfTests, sns: PushingSNS, aws_settings: AWSConfiguration
) -> None:
    received = await one(bus, sns, sns.notification("a body"))
    reason = DeadLetterReason("non_retryable", "ValueError", "it never will", 1)
    with pytest.raises(NotFound, match="push-posts-dead"):
        await bus._dead_letter(received, reason)
    sqs = aws_kit.sdk("sqs", aws_settings)
    url = sqs.create_queue(QueueName="push-posts-dead")["QueueUrl"]
    await bus._dead_letter(received, reason)
    (letter,) = await bus.list_dead_letters("push-posts")
    sqs.delete_queue(QueueUrl=url)
    assert (letter.body, letter.reason) == (b"a body", reason)


async def test_type_in_the_unsigned_attributes_alone_is_not_believed(bus: BusOfTests, sns: PushingSNS) -> None:
    received = await one(bus, sns, sns.notification('{"id":7}', {"messageType": "postCreated"}))
    assert "messageType" not in received.attributes
    assert not received.attributes_vouched


# --- what is signed, and what is not ---


async def test_message_is_known_by_the_signed_id_whatever_the_attributes_say(bus: BusOfTests, sns: PushingSNS) -> None:
    message = sns.notification("a body", {ID_ATTRIBUTE: "of the publisher"})
    received = await one(bus, sns, message)
    assert (received.message_id, received.delivery_id) == ("of the publisher", message["MessageId"])
    replayed = {**message, "MessageAttributes": {ID_ATTRIBUTE: {"Type": "String", "Value": "made up"}}}
    again = await one(bus, sns, replayed)
    assert (again.message_id, delivery_key(again)) == ("made up", delivery_key(received))


async def test_of_unsigned_attributes_only_the_trace_is_used(bus: BusOfTests, sns: PushingSNS) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    sent = {ID_ATTRIBUTE: "m", TRACEPARENT_ATTRIBUTE: trace, "messageType": "other", "contentType": "x", "mine": "y"}
    assert (await one(bus, sns, sns.notification("a body", sent))).attributes == {TRACEPARENT_ATTRIBUTE: trace}


async def test_signed_text_that_was_split_at_another_place_is_refused(bus: BusOfTests, sns: PushingSNS) -> None:
    genuine = sns.notification("a body", Subject="S", MessageId="id")
    assert (await one(bus, sns, genuine)).delivery_id == "id"
    split = {name: value for name, value in genuine.items() if name != "Subject"}
    with pytest.raises(Forbidden):
        await push(bus, sns, {**split, "MessageId": "id\nSubject\nS"})
    genuine = sns.notification("x\nMessageId\ny", MessageId="id")
    assert (await one(bus, sns, genuine)).body == b"x\nMessageId\ny"
    with pytest.raises(Forbidden):
        await push(bus, sns, {**genuine, "Message": "x", "MessageId": "y\nMessageId\nid"})


@pytest.mark.parametrize(("age", "taken"), [(timedelta(minutes=59), True), (timedelta(minutes=80), False)])
async def test_notification_older_than_sns_tries_is_refused(
    bus: BusOfTests, sns: PushingSNS, age: timedelta, taken: bool
) -> None:
    sent = (datetime.now(UTC) - age).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    message = sns.notification("a body", Timestamp=sent)
    if taken:
        await one(bus, sns, message)
    else:
        with pytest.raises(Forbidden, match="too old"):
            await push(bus, sns, message)
