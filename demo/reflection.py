"""Asks a gRPC server that nobody here has stubs of: it describes itself through server reflection, as to grpcurl.

The answer comes as JSON in the shape that grpcurl prints, for machines without one.
"""

import asyncio

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_database import DescriptorDatabase
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToJson
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

WITHIN = 10.0
_DIRECT = ("grpc.enable_http_proxy", 0)


class NoAnswer(Exception):
    """The server did not describe itself, or did not answer. The message says what it said instead."""


async def ask(target: str, method: str) -> str:
    """Calls `package.Service/Method` with an empty request and returns the answer as JSON. Raises `NoAnswer`."""
    service, _, name = method.partition("/")
    try:
        async with asyncio.timeout(WITHIN), grpc.aio.insecure_channel(target, options=(_DIRECT,)) as channel:
            pool = await _described(channel, service)
            return await _call(channel, pool.FindServiceByName(service).FindMethodByName(name), pool)
    except grpc.aio.AioRpcError as error:
        raise NoAnswer(f"{target}: {error.code().name}: {error.details()}") from None
    except TimeoutError:
        raise NoAnswer(f"{target} did not answer within {WITHIN:.0f} s") from None
    except KeyError:
        raise NoAnswer(f"{target} has no {method}") from None


async def _described(channel: grpc.aio.Channel, service: str) -> DescriptorPool:
    """Returns what the server says of a service: the file that it is in, and all that this one imports."""
    call = ServerReflectionStub(channel).ServerReflectionInfo()
    await call.write(ServerReflectionRequest(file_containing_symbol=service))
    await call.done_writing()
    answer = await call.read()
    known = DescriptorDatabase()
    for content in answer.file_descriptor_response.file_descriptor_proto:
        known.Add(FileDescriptorProto.FromString(content))
    return DescriptorPool(known)


async def _call(channel: grpc.aio.Channel, method: MethodDescriptor, pool: DescriptorPool) -> str:
    request, answer = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    call = channel.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=request.SerializeToString,
        response_deserializer=answer.FromString,
    )
    return MessageToJson(
        await call(request()), preserving_proto_field_name=True, ensure_ascii=False, descriptor_pool=pool
    )
