"""The .proto files as people wrote them: what stands in the comments, which generated stubs don't carry."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

PACKAGE = Path("geniehive/v1")


class Rpc(NamedTuple):
    comment: str
    service_comment: str
    client_streaming: bool
    server_streaming: bool


@cache
def files(root: Path) -> tuple[descriptor_pb2.FileDescriptorProto, ...]:
    """Every file of the contract, with the places of its comments."""
    import tempfile

    sources = root / "protos"
    names = sorted(str(file.relative_to(sources)) for file in (sources / PACKAGE).glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        include = protoc._get_resource_file_name("grpc_tools", "_proto")
        arguments = ["protoc", f"-I{sources}", f"-I{include}", "--include_source_info", f"--descriptor_set_out={out}"]
        if protoc.main([*arguments, *names]) != 0:
            raise RuntimeError("protoc refused the contract")
        return tuple(descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file)


def comments(file: descriptor_pb2.FileDescriptorProto) -> dict[tuple[int, ...], str]:
    """Place in the file -> the comment before it, as one line of text."""
    return {tuple(place.path): " ".join(place.leading_comments.split()) for place in file.source_code_info.location}


@cache
def rpcs(root: Path) -> dict[str, Rpc]:
    """Full name of a method -> what stands with it."""
    found = {}
    for file in files(root):
        said = comments(file)
        for s, service in enumerate(file.service):
            for m, method in enumerate(service.method):
                found[f"{file.package}.{service.name}.{method.name}"] = Rpc(
                    said.get((6, s, 2, m), ""),
                    said.get((6, s), ""),
                    method.client_streaming,
                    method.server_streaming,
                )
    return found


@cache
def enum_comments(root: Path, enum: str) -> dict[str, str]:
    """Value of an enum -> its comment."""
    for file in files(root):
        said = comments(file)
        for e, made in enumerate(file.enum_type):
            if made.name == enum:
                return {value.name: said.get((5, e, 2, v), "") for v, value in enumerate(made.value)}
    raise KeyError(enum)
