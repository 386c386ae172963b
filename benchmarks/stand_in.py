"""A stand-in for a SuperNode: hands one message to any process that asks, over Flower's own protocol.

Starting a process against it is what a SuperNode does, without the seconds of polling around it.
"""

import hashlib
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from flwr.app import Context, Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import context_to_proto, message_to_proto
from flwr.proto.fab_pb2 import Fab
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse
from flwr.proto.run_pb2 import Run
from flwr.proto.runtime_pb2 import PullAppMessagesResponse, PullTaskInputResponse, SendTaskHeartbeatResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

FAB_ID, FAB_VERSION = "fedsieve/fedsieve", "0.1.0"


class StandIn:
    """Serves on loopback, on a port that the system chooses, while it is entered."""

    def __init__(self, message: Message, context: Context, fab: bytes) -> None:
        """Take what each process is given: the message, its context and the program."""
        message.metadata.__dict__["_message_id"] = message.object_id
        tree = get_object_tree(message)
        objects = {name: item.deflate() for name, item in get_all_nested_objects(message).items()}
        digest = hashlib.sha256(fab).hexdigest()
        task = PullTaskInputResponse(
            task_id=1,
            context=context_to_proto(context),
            run=Run(run_id=context.run_id, fab_id=FAB_ID, fab_version=FAB_VERSION, fab_hash=digest),
            fab=Fab(hash_str=digest, content=fab),
        )
        bare = message_to_proto(remove_content_from_message(message))
        answers = {
            "pull-task-input": task.SerializeToString(),
            "pull-messages": PullAppMessagesResponse(
                messages_list=[bare], message_object_trees=[tree]
            ).SerializeToString(),
            "send-task-heartbeat": SendTaskHeartbeatResponse(success=True).SerializeToString(),
        }
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(answers, objects))
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "StandIn":
        """Begin to serve."""
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


def _handler(answers: Mapping[str, bytes], objects: Mapping[str, bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            verb = self.path.rpartition("/")[2]
            if verb == "pull-object":
                content = objects[PullObjectRequest.FromString(body).object_id]
                reply = PullObjectResponse(object_found=True, object_available=True, object_content=content)
                answer = reply.SerializeToString()
            else:
                answer = answers.get(verb, b"")  # what is pushed is taken and forgotten
            self.send_response(200)
            self.send_header("content-type", "application/protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            return

    return Handler
