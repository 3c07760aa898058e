"""The asynchronous client: the grid's verbs as coroutines on the Twisted reactor."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from filegrid.client.access import Access
from filegrid.client.avoided import Avoided
from filegrid.client.content import Content
from filegrid.client.download import download
from filegrid.client.local import LocalSource, LocalTarget, local_errors, open_source
from filegrid.client.payload import BytesPayload, FilePayload
from filegrid.client.session import Session
from filegrid.client.stat import Stat
from filegrid.client.status import status_document
from filegrid.client.upload import StreamUpload, Upload
from filegrid.config import load_client, find_client_config
from filegrid.errors import AlreadyExists, IsAFolder, NoSuchPath, NotAFolder
from filegrid.model import Address, Identity, join_path, split_path
from filegrid.net.credentials import Credentials
from filegrid.net.dial import DataPool, hello_of
from filegrid.net.reactor import ReactorThreads, make_runtime
from filegrid.protocol.wire import head_pb2, values_pb2
from filegrid.protocol.wire.frame_pb2 import Done
from filegrid.runtime import Bytes, Runtime

TIMEOUT_SECONDS = 30.0
LIST_PAGE = 1000
STREAM_BYTES = 1024 * 1024
"""Taken at once from a file object that is uploaded."""

Moved = Callable[[int], None]
Source = str | os.PathLike[str] | BinaryIO
