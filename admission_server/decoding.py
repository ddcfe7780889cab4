"""Answers bytes that are no message with INVALID_ARGUMENT, for every method.

gRPC's Python server takes them for a failure of the servicer: status UNKNOWN, and an error with a traceback in the log,
which anybody who reaches the port could fill it with. Here they are what they are, a mistake of the caller.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from admission_server.errors import Malformed, abort

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]


class DecodingInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not subscriptable at run time
    """Puts our own reading of requests before a method's."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler":
        """Returns the method with a reader that refuses what is no message."""
        handler = await continuation(handler_call_details)
        return handler if handler is None else _guarded(handler)


def _guarded(handler: Any) -> "Handler":
    if handler.request_streaming:
        make: Any = grpc.stream_stream_rpc_method_handler
        inner, read = handler.stream_stream, _raising(handler.request_deserializer)
    elif handler.response_streaming:
        make = grpc.unary_stream_rpc_method_handler
        inner, read = handler.unary_stream, _returning(handler.request_deserializer)
    else:
        make = grpc.unary_unary_rpc_method_handler
        inner, read = handler.unary_unary, _returning(handler.request_deserializer)
    guarded: Handler = make(_refusing(inner), read, handler.response_serializer)
    return guarded


def _raising(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A stream's message is read where the method awaits it, which is where a refusal has to come from."""

    def checked(content: bytes) -> Any:
        try:
            return read(content)
        except DecodeError:
            raise Malformed("a message cannot be read") from None

    return checked


def _returning(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A single message is read before the method is called, so the refusal comes to it in the message's place."""
    raising = _raising(read)

    def checked(content: bytes) -> Any:
        try:
            return raising(content)
        except Malformed as error:
            return error

    return checked


def _refusing(inner: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Awaitable[Any]]:
    async def method(request: Any, context: Any) -> Any:
        try:
            if isinstance(request, Malformed):
                raise request
            answer = inner(request, context)
            if not hasattr(answer, "__aiter__"):
                return await answer
            async for response in answer:
                await context.write(response)
        except Malformed as error:
            await abort(context, error)

    return method
