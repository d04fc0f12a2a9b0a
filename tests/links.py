"""Breaks the TCP connections of another process: at once for both ends, or in silence.

Linux lends a process the descriptors of another one (pidfd_getfd), so that no proxy stands between
the ends, and nothing listens where it would not without the test.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import sys
from collections.abc import Iterator

import psutil
import pytest

_PIDFD_GETFD = 438  # of every architecture
_ATTACH_FILTER = 26  # SO_ATTACH_FILTER
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # one instruction of BPF: keep no byte of a packet


def cut(process: psutil.Process) -> int:
    """Close the process's TCP connections, as an sshd that is killed; return how many."""
    with _connections(process) as found:
        for connection in found:
            connection.shutdown(socket.SHUT_RDWR)
        return len(found)


def silence(process: psutil.Process) -> int:
    """Drop what comes in by the process's TCP connections, as where a cable was pulled; return how
    many they are. Neither end is told.
    """
    program = ctypes.create_string_buffer(_DROP_ALL)
    described = struct.pack("HP", 1, ctypes.addressof(program))
    with _connections(process) as found:
        for connection in found:
            connection.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, described)
        return len(found)


@contextlib.contextmanager
def _connections(process: psutil.Process) -> Iterator[list[socket.socket]]:
    if sys.platform != "linux":
        pytest.skip("only Linux lends the sockets of another process")
    fds = [
        one.fd
        for one in process.net_connections("tcp")
        if one.status == psutil.CONN_ESTABLISHED and one.fd >= 0
    ]
    with contextlib.ExitStack() as stack:
        handle = os.pidfd_open(process.pid)
        stack.callback(os.close, handle)
        found = []
        for fd in fds:
            try:
                lent = _lent(handle, fd)
            except PermissionError:
                pytest.skip("this system lends no sockets of another process")
            found.append(stack.enter_context(socket.socket(fileno=lent)))
        yield found


def _lent(handle: int, fd: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    got = int(libc.syscall(_PIDFD_GETFD, handle, fd, 0))
    if got < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return got
