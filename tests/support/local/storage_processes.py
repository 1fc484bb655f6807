"""A storage whose operations run in other processes, in turn: two that follow each other are never in one.

Run as a script it is such a process: it answers at a socket, a thread for each operation, until its input ends.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from multiprocessing.connection import Client, Connection, Listener
from typing import Any, BinaryIO, ClassVar, cast

import totoms  # noqa: F401 - tells the interfaces where to find the implementations
from totoms.environment import TotoEnvironment
from totoms.local.configuration import LocalConfiguration
from totoms.local.storage.storage import LocalCloudStorage
from totoms.storage.driver import FileInfo, WriteOptions
from totoms.storage.streams import ByteStream, ChunkReader

_CHUNK = 256 * 1024
_PAGE = 500


class StorageProcesses:
    """Processes that store files."""

    def __init__(self, number: int) -> None:
        self._folder = tempfile.mkdtemp(prefix="totoms-")
        addresses = [os.path.join(self._folder, str(one)) for one in range(number)]
        command = [sys.executable, "-P", __file__]  # modules in its folder have names of the standard library
        self._processes = [
            subprocess.Popen([*command, one], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for one in addresses
        ]
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        self._turns = itertools.cycle(addresses)

    def connect(self) -> Connection:
        return Client(next(self._turns))

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        shutil.rmtree(self._folder)


class ProcessCloudStorage(LocalCloudStorage):
    """A local storage that does nothing itself."""

    processes: ClassVar[StorageProcesses]

    def _begin(self, operation: str, *arguments: Any) -> Connection:
        connection = self.processes.connect()
        connection.send((self._root, self.bucket_name, operation, arguments))
        return connection

    def _call(self, operation: str, *arguments: Any) -> Any:
        with self._begin(operation, *arguments) as connection:
            return _answer(connection)

    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        with self._begin("_write", key, options) as connection:
            while chunk := source.read(_CHUNK):  # an error closes the connection and is reported to the other side
                connection.send_bytes(chunk)
            connection.send_bytes(b"")
            return cast(str, _answer(connection))

    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        connection = self._begin("_read", key, start, length)
        try:
            _answer(connection)
        except BaseException:
            connection.close()
            raise
        return ByteStream(iter(lambda: _answer(connection), None), close=connection.close)

    def _list(self, prefix: str, delimiter: str) -> Iterator[str]:
        with self._begin("_list", prefix, delimiter) as connection:
            _answer(connection)
            while page := _answer(connection):
                yield from page

    def _stat(self, key: str) -> FileInfo:
        return cast(FileInfo, self._call("_stat", key))

    def _copy(self, source: str, destination: str) -> str:
        return cast(str, self._call("_copy", source, destination))

    def _delete(self, key: str) -> None:
        self._call("_delete", key)

    def _signed_url(self, key: str, method: str, expires_in: int, content_type: str) -> str:
        return cast(str, self._call("_signed_url", key, method, expires_in, content_type))


def _answer(connection: Connection) -> Any:
    answer = connection.recv()
    if isinstance(answer, BaseException):
        raise answer
    return answer


# --- in the other process ---


def _serve(connection: Connection) -> None:
    with connection, contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        root, bucket, operation, arguments = connection.recv()
        storage = LocalCloudStorage(bucket, environment=TotoEnvironment("local", LocalConfiguration(root=root)))
        try:
            if operation == "_write":
                key, options = arguments
                # The end of the connection before the end of the content is an error, which ends the upload.
                source = cast(BinaryIO, ChunkReader(iter(connection.recv_bytes, b"")))
                answer: Any = storage._write(key, source, options)
            elif operation == "_read":
                answer = None
                with contextlib.closing(cast(ByteStream, storage._read(*arguments))) as chunks:
                    connection.send(None)
                    for chunk in chunks:
                        connection.send(chunk)
            elif operation == "_list":
                keys = storage._list(*arguments)
                connection.send(None)
                while page := list(itertools.islice(keys, _PAGE)):
                    connection.send(page)
                answer = []
            else:
                answer = getattr(storage, operation)(*arguments)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:
            answer = error
        connection.send(answer)


def main() -> None:
    listener = Listener(sys.argv[1], backlog=128)

    def end() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=end, daemon=True).start()
    print("ready", flush=True)
    while True:
        threading.Thread(target=_serve, args=(listener.accept(),), daemon=True).start()


if __name__ == "__main__":
    main()
