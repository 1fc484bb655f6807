"""Files on S3: what the storage contract does not see. Parts, broken connections, lost answers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from botocore.awsrequest import AWSResponse, HeadersDict
from urllib3 import HTTPResponse

from standins.aws.errors import FaultyAWS, Request
from support import missing_buckets
from support.aws import kit as aws_kit
from totoms import CloudStorage
from totoms.clients import close_clients
from totoms.context import new_cid
from totoms.errors import NotFound, PreconditionFailed, Unavailable
from totoms.names import MAX_METADATA_BYTES
from totoms.testing.storage.tools import noise
from totoms_aws import clients
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.storage import signing, storage, upload
from totoms_aws.storage.upload import PART, part_size, parts_of

LARGE = noise(2 * PART + 7)


@pytest.fixture
def bucket(aws: AWSConfiguration) -> CloudStorage:
    return CloudStorage(aws_kit.make_bucket(aws), environment=aws_kit.environment(aws))


@pytest.fixture
def faulty_bucket(faulty_aws: AWSConfiguration, monkeypatch: pytest.MonkeyPatch) -> CloudStorage:
    # The SDK's own retries wait for seconds.
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    return CloudStorage(aws_kit.make_bucket(faulty_aws), environment=aws_kit.environment(faulty_aws))


def s3() -> Any:
    return clients.client("s3", AWSConfiguration(region=aws_kit.REGION))


def unfinished(bucket: CloudStorage) -> list[Any]:
    found: list[Any] = s3().list_multipart_uploads(Bucket=bucket.bucket_name).get("Uploads", [])
    return found


def operation(method: str, text: str) -> Any:
    return lambda request: request.method == method and text in request.path


def test_large_file_goes_up_in_parts_and_comes_back(bucket: CloudStorage) -> None:
    etag = bucket.upload_bytes(LARGE, "large", content_type="a/b", metadata={"a": "1"})

    info = bucket.stat("large")
    assert (info.etag, info.size, info.content_type, info.metadata) == (etag, len(LARGE), "a/b", {"a": "1"})
    assert bucket.get_file_bytes("large") == LARGE
    assert "-3" in s3().head_object(Bucket=bucket.bucket_name, Key="large")["ETag"]
    assert unfinished(bucket) == []


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART])
def test_file_of_about_a_parts_size_is_whole(bucket: CloudStorage, size: int) -> None:
    content = noise(size)

    bucket.upload_stream([content[:9], content[9:]], "key")

    assert bucket.get_file_bytes("key") == content


def test_conditions_hold_for_files_in_parts(bucket: CloudStorage) -> None:
    first = bucket.upload_bytes(LARGE, "key", if_absent=True)
    with pytest.raises(PreconditionFailed) as caught:
        bucket.upload_bytes(LARGE, "key", if_absent=True)
    assert "exists already" in str(caught.value)
    second = bucket.upload_bytes(LARGE, "key", if_match=first)
    assert second != first
    with pytest.raises(PreconditionFailed):
        bucket.upload_bytes(LARGE[::-1], "key", if_match=first)

    assert bucket.get_file_bytes("key") == LARGE
    assert unfinished(bucket) == []


def test_condition_of_a_file_in_parts_is_decided_when_it_is_put_in_place(bucket: CloudStorage) -> None:
    etag = bucket.upload_bytes(b"old", "key")

    def chunks() -> Iterator[bytes]:
        yield LARGE
        bucket.upload_bytes(b"new", "key")

    for condition in ({"if_match": etag}, {"if_absent": True}):
        with pytest.raises(PreconditionFailed):
            bucket.upload_stream(chunks(), "key", **condition)  # type: ignore[arg-type]
    assert bucket.get_file_bytes("key") == b"new"
    assert unfinished(bucket) == []


def test_upload_whose_source_fails_leaves_no_parts_that_are_paid_for(bucket: CloudStorage) -> None:
    def chunks() -> Iterator[bytes]:
        yield LARGE
        raise ConnectionResetError("the caller went away")

    with pytest.raises(ConnectionResetError, match="the caller"):
        bucket.upload_stream(chunks(), "key")

    assert unfinished(bucket) == []
    assert not bucket.exists("key")


def test_part_that_fails_ends_the_upload_and_is_reported(faulty_bucket: CloudStorage, faults: FaultyAWS) -> None:
    faults.rule(matches=operation("PUT", "partNumber=2"), status=503, code="SlowDown")

    with pytest.raises(Unavailable) as caught:
        faulty_bucket.upload_bytes(LARGE, "key")

    assert caught.value.resource == "key"
    assert type(caught.value.__cause__).__name__ == "ClientError"
    assert unfinished(faulty_bucket) == []
    assert not faulty_bucket.exists("key")


def test_part_that_fails_once_is_sent_again(faulty_bucket: CloudStorage, faults: FaultyAWS) -> None:
    rule = faults.rule(matches=operation("PUT", "partNumber=2"), status=500, code="InternalError", times=1)

    faulty_bucket.upload_bytes(LARGE, "key")

    assert len(rule.seen) == 1
    assert faulty_bucket.get_file_bytes("key") == LARGE


@pytest.mark.parametrize("content", [b"small", LARGE], ids=["whole", "in parts"])
@pytest.mark.parametrize("condition", ["if_absent", "if_match", None])
def test_answer_that_is_lost_does_not_turn_success_into_failure(
    faulty_bucket: CloudStorage, faults: FaultyAWS, content: bytes, condition: str | None
) -> None:
    settings: dict[str, Any] = {"if_absent": True} if condition == "if_absent" else {}
    if condition == "if_match":
        settings = {"if_match": faulty_bucket.upload_bytes(b"old", "key")}

    def writes(request: Request) -> bool:
        query = urlsplit(request.path).query
        return (request.method == "PUT" and not query) or (request.method == "POST" and "uploadId=" in query)

    rule = faults.rule(matches=writes, lose=True, times=1)

    etag = faulty_bucket.upload_bytes(content, "key", **settings)

    assert len(rule.seen) == 1
    assert faulty_bucket.stat("key").etag == etag
    assert faulty_bucket.get_file_bytes("key") == content


def test_download_goes_on_where_the_connection_broke(faulty_bucket: CloudStorage, faults: FaultyAWS) -> None:
    content = noise(4_000_000)
    faulty_bucket.upload_bytes(content, "key")
    rule = faults.rule(matches=operation("GET", "/key"), cut=1_500_000, times=2)

    assert faulty_bucket.get_file_bytes("key") == content
    assert b"".join(faulty_bucket.stream_file("key", 17, 3_999_000)) == content[17:3_999_000]
    assert len(rule.seen) == 2
    assert "range" in faults.requests[-1].headers
    assert "if-match" in next(one for one in faults.requests if "if-match" in one.headers).headers


def test_download_that_breaks_again_and_again_is_reported(faulty_bucket: CloudStorage, faults: FaultyAWS) -> None:
    faulty_bucket.upload_bytes(noise(3_000_000), "key")
    rule = faults.rule(matches=operation("GET", "/key"), cut=0)

    with faulty_bucket.stream_file("key") as chunks, pytest.raises(Unavailable) as caught:
        list(chunks)

    assert caught.value.resource == "key"
    assert caught.value.__cause__ is not None
    assert len(rule.seen) < 10


def test_download_never_goes_on_in_another_version(faulty_bucket: CloudStorage, faults: FaultyAWS) -> None:
    faulty_bucket.upload_bytes(noise(3_000_000, "old"), "key")
    faults.rule(matches=operation("GET", "/key"), cut=1_500_000, times=1)

    with faulty_bucket.stream_file("key") as chunks:
        next(chunks)
        faulty_bucket.upload_bytes(noise(3_000_000, "new"), "key")
        with pytest.raises(Unavailable, match="replaced"):
            list(chunks)


def test_stream_that_is_left_gives_its_connection_back(bucket: CloudStorage) -> None:
    bucket.upload_bytes(LARGE, "key")

    for _ in range(2 * clients.CONNECTIONS):
        with bucket.stream_file("key") as chunks:
            next(chunks)

    assert bucket.exists("key")


def test_large_file_is_copied_by_parts(bucket: CloudStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "COPIED_PART", PART)
    monkeypatch.setattr(storage, "COPIED_PART", PART)
    bucket.upload_bytes(LARGE, "a b/ü?&", content_type="a/b", metadata={"a": "1"})

    etag = bucket.copy_file("a b/ü?&", "copy")

    info = bucket.stat("copy")
    assert (info.etag, info.content_type, info.metadata, info.size) == (etag, "a/b", {"a": "1"}, len(LARGE))
    assert "-3" in s3().head_object(Bucket=bucket.bucket_name, Key="copy")["ETag"]
    assert bucket.get_file_bytes("copy") == LARGE
    assert unfinished(bucket) == []


def test_writer_between_the_look_and_the_write_wins(faulty_bucket: CloudStorage, faults: FaultyAWS) -> None:
    etag = faulty_bucket.upload_bytes(b"old", "key")
    behind = faults.ask
    replaced = []

    def ask(request: Request) -> Any:
        answer = behind(request)
        if request.method == "HEAD" and not replaced:
            replaced.append(True)
            faulty_bucket.upload_bytes(b"theirs", "key")
        return answer

    faults.ask = ask  # type: ignore[method-assign]
    with pytest.raises(PreconditionFailed):
        faulty_bucket.upload_bytes(b"ours", "key", if_match=etag)

    assert replaced
    assert faulty_bucket.get_file_bytes("key") == b"theirs"


def test_copy_is_of_one_version(faulty_bucket: CloudStorage, faults: FaultyAWS) -> None:
    faulty_bucket.upload_bytes(b"old", "key", metadata={"version": "old"})
    behind = faults.ask
    replaced = []

    def ask(request: Request) -> Any:
        answer = behind(request)
        if request.method == "HEAD" and not replaced:
            replaced.append(True)
            faulty_bucket.upload_bytes(b"newer", "key", metadata={"version": "new"})
        return answer

    faults.ask = ask  # type: ignore[method-assign]
    faulty_bucket.copy_file("key", "copy")

    assert replaced
    assert faulty_bucket.get_file_bytes("copy") == b"newer"
    assert faulty_bucket.stat("copy").metadata == {"version": "new"}


def test_copy_keeps_the_headers_that_others_gave_a_file(bucket: CloudStorage) -> None:
    s3().put_object(Bucket=bucket.bucket_name, Key="key", Body=b"x", CacheControl="no-store", ContentLanguage="de")

    bucket.copy_file("key", "copy")

    head = s3().head_object(Bucket=bucket.bucket_name, Key="copy")
    assert (head["CacheControl"], head["ContentLanguage"]) == ("no-store", "de")


def test_file_of_another_program_has_an_etag_and_can_be_replaced(bucket: CloudStorage) -> None:
    s3().put_object(Bucket=bucket.bucket_name, Key="key", Body=b"theirs")
    etag = bucket.stat("key").etag

    bucket.upload_bytes(b"ours", "key", if_match=etag)
    with pytest.raises(PreconditionFailed):
        bucket.upload_bytes(b"late", "key", if_match=etag)

    assert bucket.get_file_bytes("key") == b"ours"


@pytest.mark.parametrize("etag", ["of nobody", "*", 'a", "b', "a\nb", "ü", "x" * 5000, f"x.{'0' * 32}"])
def test_invalid_etag_matches_no_file(bucket: CloudStorage, etag: str) -> None:
    bucket.upload_bytes(b"old", "key")

    with pytest.raises(PreconditionFailed):
        bucket.upload_bytes(b"new", "key", if_match=etag)

    assert bucket.get_file_bytes("key") == b"old"


def test_replacing_the_same_bytes_again_is_a_change(bucket: CloudStorage) -> None:
    first = bucket.upload_bytes(b"same", "key")
    bucket.upload_bytes(b"same", "key")

    with pytest.raises(PreconditionFailed):
        bucket.upload_bytes(b"mine", "key", if_match=first)


def test_metadata_may_fill_all_the_room_there_is(bucket: CloudStorage) -> None:
    metadata = {"a": "x" * (MAX_METADATA_BYTES - 1)}

    etag = bucket.upload_bytes(b"x", "key", metadata=metadata)

    assert bucket.stat("key").metadata == metadata
    bucket.upload_bytes(b"y", "key", if_match=etag)


def test_missing_bucket_is_reported_by_name_and_a_missing_key_in_it_by_key(aws: AWSConfiguration) -> None:
    missing = CloudStorage("totoms-no-such-bucket", environment=aws_kit.environment(aws))
    uses: dict[str, Any] = {
        "upload": lambda: missing.upload_bytes(b"x", "key"),
        "parts": lambda: missing.upload_bytes(LARGE, "key"),
        "delete": lambda: missing.delete_file("key"),
        "list": missing.list_files,
    }
    for what, use in uses.items():
        with pytest.raises(NotFound, match="totoms-no-such-bucket") as caught:
            use()
        assert caught.value.resource == "totoms-no-such-bucket", what
        assert caught.value.__cause__ is not None, what
    with pytest.raises(NotFound) as caught:
        missing.stat("key")
    assert caught.value.resource == "key"


@pytest.mark.parametrize("use", ["get_file_bytes", "exists"])
def test_missing_bucket_is_distinguished_in_the_log_once(
    aws: AWSConfiguration, caplog: pytest.LogCaptureFixture, use: str
) -> None:
    missing = CloudStorage(f"missing-{new_cid()}", environment=aws_kit.environment(aws))
    there = CloudStorage(aws_kit.make_bucket(aws), environment=aws_kit.environment(aws))
    missing_buckets.check_log(caplog, there, missing, use)


def test_parts_grow_so_that_ten_thousand_hold_any_object() -> None:
    sizes = [part_size(number) for number in range(1, 10_001)]

    assert sum(sizes) > 30 * 1024**4
    assert min(sizes) >= 5 * 1024**2
    assert max(sizes) <= 5 * 1024**3
    assert sizes == sorted(sizes)


def test_large_parts_do_not_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "_PARTS_OF_A_SIZE", 1)
    monkeypatch.setattr(upload, "_PART_SIZES", (PART, PART + 1, 2 * PART))
    content = noise(4 * PART)
    seen = []
    for part in parts_of(io.BytesIO(content)):
        body = part.sent["Body"]
        in_memory = isinstance(body, bytearray)
        seen.append((in_memory, part.last, bytes(body) if in_memory else body.read()))
        with part:
            pass

    assert [(in_memory, last) for in_memory, last, _ in seen] == [(True, False), (False, False), (False, True)]
    assert b"".join(piece for *_, piece in seen) == content


def test_few_parts_are_in_memory_at_once(faulty_bucket: CloudStorage, faults: FaultyAWS) -> None:
    behind, sent, in_memory = faults.ask, [], []

    def ask(request: Request) -> Any:
        answer = behind(request)
        if "partNumber=" in request.path:
            sent.append(request)
        return answer

    def chunks() -> Iterator[bytes]:
        for number in range(1, 17):
            in_memory.append(number - len(sent))
            yield bytes(PART)

    faults.ask = ask  # type: ignore[method-assign]
    faulty_bucket.upload_stream(chunks(), "key")

    assert len(sent) == 16
    assert max(in_memory) <= upload.PARTS_IN_FLIGHT + 1  # the chunk that is being read from


def test_signed_url_is_of_the_buckets_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "region_of", lambda *_: None)  # without a request
    aws_kit.use(monkeypatch, None)
    for region in ("eu-north-1", "us-east-1", "me-central-1"):
        environment = aws_kit.environment(AWSConfiguration(region=region))
        for name, host in (("a-bucket", f"a-bucket.s3.{region}."), ("a.bucket", f"s3.{region}.")):
            url = urlsplit(CloudStorage(name, environment=environment).signed_url("key"))
            expected = host if region != "us-east-1" else (host, host.replace("us-east-1.", ""))
            assert url.netloc.startswith(expected)
            assert f"%2F{region}%2Fs3%2F" in url.query
    close_clients()


def test_style_of_addresses_that_the_profile_asks_for_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(signing, "region_of", lambda *_: None)  # without a request
    config = tmp_path / "config"
    config.write_text("[profile mine]\ns3 =\n  addressing_style = path\n")
    credentials = tmp_path / "credentials"
    credentials.write_text("[mine]\naws_access_key_id = OF-PROFILE\naws_secret_access_key = x\n")
    aws_kit.use(
        monkeypatch, None, AWS_PROFILE="mine", AWS_CONFIG_FILE=str(config), AWS_SHARED_CREDENTIALS_FILE=str(credentials)
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    url = CloudStorage("a-bucket", environment=aws_kit.environment(AWSConfiguration())).signed_url("key")

    assert "amazonaws.com/a-bucket/key?" in url
    assert "OF-PROFILE" in url
    close_clients()


def test_copy_keeps_storage_class_encryption_and_tags(faulty_bucket: CloudStorage, faults: FaultyAWS) -> None:
    name = faulty_bucket.bucket_name
    s3().put_object(
        Bucket=name,
        Key="key",
        Body=b"x",
        StorageClass="STANDARD_IA",
        ServerSideEncryption="aws:kms",
        SSEKMSKeyId="a-key",
        Tagging="kind=post&a%20b=c%2Fd",
    )
    faulty_bucket.copy_file("key", "copy")
    (asked,) = [request for request in faults.requests if "x-amz-copy-source" in request.headers]
    assert asked.headers["x-amz-storage-class"] == "STANDARD_IA"
    assert asked.headers["x-amz-server-side-encryption"] == "aws:kms"
    assert asked.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "a-key"
    assert "x-amz-tagging-directive" not in asked.headers  # S3 copies them by itself


def test_copy_by_parts_keeps_storage_class_and_tags(
    faulty_bucket: CloudStorage, faults: FaultyAWS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "COPIED_PART", PART)
    monkeypatch.setattr(storage, "COPIED_PART", PART)
    name = faulty_bucket.bucket_name
    s3().put_object(Bucket=name, Key="key", Body=LARGE, StorageClass="STANDARD_IA", Tagging="kind=post&a%20b=c%2Fd")
    faulty_bucket.copy_file("key", "copy")
    (begun,) = [request for request in faults.requests if request.path.endswith("?uploads")]
    assert begun.headers["x-amz-storage-class"] == "STANDARD_IA"
    assert dict(parse_qsl(begun.headers["x-amz-tagging"])) == {"kind": "post", "a b": "c/d"}


@pytest.mark.parametrize("status", [200, 403])
def test_url_is_signed_for_the_region_of_the_bucket(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    for variable, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setattr(signing, "_regions", {})
    close_clients()
    asked = []

    def answer(request: Any, **_: Any) -> AWSResponse:
        asked.append(request.url)
        raw = HTTPResponse(io.BytesIO(), preload_content=False)
        return AWSResponse(request.url, status, HeadersDict({"x-amz-bucket-region": "ap-south-1"}), raw)

    settings = AWSConfiguration(region="eu-west-1")
    clients.client("s3", settings).meta.events.register("before-send.s3.HeadBucket", answer)
    files = CloudStorage("a-bucket", environment=aws_kit.environment(settings))
    try:
        urls = [urlsplit(files.signed_url("a-key")) for _ in range(2)]
    finally:
        close_clients()
    assert {url.netloc for url in urls} == {"a-bucket.s3.ap-south-1.amazonaws.com"}
    assert all("%2Fap-south-1%2Fs3%2F" in url.query for url in urls)
    assert len(asked) == 1
