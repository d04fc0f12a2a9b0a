"""gRPC server reflection, v1: grpcio-reflection serves v1alpha, whose messages are the same.

`grpc/reflection/v1/reflection.proto` differs from that of v1alpha in its package alone. Newer
generic clients (grpcurl, Postman, buf curl) ask for v1, older ones for v1alpha.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import _async, reflection, reflection_pb2

SERVICE = "grpc.reflection.v1.ServerReflection"


def enable(services: Sequence[str], server: grpc.aio.Server) -> None:
    """Serve both versions of reflection for `services` and for reflection itself."""
    _add_descriptor()
    names = (*services, reflection.SERVICE_NAME, SERVICE)
    reflection.enable_server_reflection(names, server)
    method = grpc.stream_stream_rpc_method_handler(
        _async.ReflectionServicer(names).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler(SERVICE, {"ServerReflectionInfo": method})
    server.add_generic_rpc_handlers((handler,))


def _add_descriptor() -> None:
    """Make the v1 service known to the pool that reflection answers from."""
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    text = text_format.MessageToString(file).replace("reflection.v1alpha", "reflection.v1")
    text = text.replace("reflection/v1alpha", "reflection/v1")
    descriptor_pool.Default().Add(text_format.Parse(text, descriptor_pb2.FileDescriptorProto()))
