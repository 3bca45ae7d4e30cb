"""Tables of calibrated keys: what a layer needs of them, and the file that holds them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from kakeya_fast.hf.rope import Rope
from kakeya_ref.errors import Malformed, UsageError
from kakeya_ref.registry import parse_codec
from kakeya_ref.skeletons import Skeleton, parts

FORMAT = "kakeya-query-1"
# Numbers of each parameter that enter the fingerprint of a model.
SAMPLE = 64


@dataclass(frozen=True)
class LayerTables:
    """Tables of the KV heads of one layer, and the rotation that frames undo.

    Attributes
    ----------
    known : Skeleton
        One body and one analysis a head.
    rope : Rope
    frame : int
    """

    known: Skeleton
    rope: Rope
    frame: int

    def __post_init__(self) -> None:
        # Of its own, and nobody can write to them: a device then keeps its copy between calls.
        arrays = [np.array(array) for array in (self.known.bodies, self.known.analysis)]
        for array in arrays:
            array.setflags(write=False)
        object.__setattr__(self, "known", Skeleton(*arrays))

    @property
    def nbytes(self) -> int:
        """Bytes of the tables, which all sequences share."""
        return self.known.bodies.nbytes + self.known.analysis.nbytes

    def of_pages(self, count: int) -> Skeleton:
        """Tables of ``count`` pages whose heads stand together."""
        heads = len(self.known.bodies)
        return Skeleton(self.known.bodies, self.known.analysis, np.arange(count * heads) % heads)

    @cached_property
    def of_heads(self) -> tuple[Skeleton, ...]:
        """The table of each KV head by itself."""
        return tuple(Skeleton(self.known.bodies[h : h + 1]) for h in range(len(self.known)))

    @cached_property
    def _numbers(self) -> tuple[Tensor, Tensor, Tensor]:
        codec, size = parse_codec(f"query:f={self.frame}"), self.known.analysis.shape[-1]
        read = [parts(body, codec, size) for body in self.known.bodies]
        with torch.inference_mode(False):
            basis = torch.from_numpy(np.stack([p.basis for p in read]))
            mean = torch.from_numpy(np.stack([p.mean for p in read]))
            both = torch.cat([basis, mean[:, None]], 1).transpose(1, 2)
            return basis, mean, both.contiguous()

    @cached_property
    def _there(self) -> dict[Any, tuple[Tensor, Tensor, Tensor]]:
        return {}

    def numbers(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers of the tables, on the device and in the type of a tensor.

        Basis (H, D, D), mean (H, D), and both as factors of queries (H, D, D + 1).
        """
        key = like.device, like.dtype
        if key not in self._there:
            with torch.inference_mode(False):
                basis, mean, both = (x.to(*key) for x in self._numbers)
            self._there[key] = basis, mean, both
        return self._there[key]

    def framed(self, keys: Tensor, positions: Tensor) -> Tensor:
        """Keys (..., P, D) in frame coordinates; ``positions`` are those of the frames."""
        wide = keys.to(torch.float64) if keys.dtype is torch.float64 else keys.to(torch.float32)
        return self.rope.turned(wide, -positions)

    def queries(self, q: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Queries as frames see them, in the coded basis, and what the mean adds to each score.

        Rule: query.attend.frame

        Parameters
        ----------
        q : (B, H, M, D)
            As the model makes them, after rotation.
        frames : (B, F)
            Positions where frames begin.

        Returns
        -------
        (B, H, F, M, D) and (B, H, F, M)
        """
        turned = self.rope.turned(q[:, :, None], -frames[:, None, :, None])
        # One product a head, of the rows of all frames.
        rows = turned.transpose(0, 1).flatten(1, 3) @ self.numbers(turned)[2]
        rows = rows.unflatten(1, (len(q), *turned.shape[2:4])).transpose(0, 1)
        return rows[..., :-1], rows[..., -1]

    def queries_of_many(self, q: Tensor, waves: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`queries`, by one product for all heads.

        Parameters
        ----------
        waves : (B, F, W)
            :meth:`Rope.rows` of ``-frames``. With more of them than ``D`` this is less work.
        """
        factors = self.rope.factors(q, self.numbers(q)[2])
        rows = (waves @ factors.flatten(2)).unflatten(2, factors.shape[2:]).transpose(1, 2)
        return rows[..., :-1], rows[..., -1]

    def keys(self, y: Tensor, positions: Tensor) -> Tensor:
        """Keys (B, H, T, D) of coefficients; ``positions`` (B, T) of the frame of each token."""
        basis, mean, _ = self.numbers(y)
        return self.rope.turned(y @ basis + mean[:, None], positions[:, None])


@dataclass(frozen=True)
class KeyTables:
    """Tables of a whole model.

    Attributes
    ----------
    layers : mapping of model layer to LayerTables
    frame : int
    model : str
        Fingerprint of the model they were made for.
    made : dict
        How: tokens, context, text.
    """

    layers: Mapping[int, LayerTables]
    frame: int
    model: str
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        return sum(layer.nbytes for layer in self.layers.values())

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, the same bytes for the same tables; an existing one is replaced
        whole or not at all.
        """
        tensors, about = {}, {}
        for index, layer in self.layers.items():
            tensors[f"layers.{index}.bodies"] = layer.known.bodies
            tensors[f"layers.{index}.analysis"] = layer.known.analysis
            about[str(index)] = {
                "frequencies": list(layer.rope.frequencies), "interleaved": layer.rope.interleaved
            }  # fmt: skip
        header = {
            "format": FORMAT, "model": self.model, "frame": str(self.frame),
            "rotation": json.dumps(about), "made": json.dumps(self.made),
            "sha256": _digest(tensors, about, self.frame, self.model),
        }  # fmt: skip
        target = Path(path)
        draft = target.with_name(target.name + ".part")
        whole = {k: np.ascontiguousarray(v) for k, v in tensors.items()}
        draft.write_bytes(_in_order(serialize(whole, metadata=header)))
        draft.replace(target)

    def check(self, model: PreTrainedModel) -> None:
        """Refuse tables that were made for another model.

        Rule: query.tables.match

        Raises
        ------
        UsageError
        """
        if fingerprint(model) != self.model:
            raise UsageError(
                "query.tables.match",
                "these tables were made for another model; run `kakeya calibrate` for this one",
            )


def load_tables(path: str | Path) -> KeyTables:
    """Tables from a file that ``kakeya calibrate`` wrote.

    Rule: query.tables.match

    Raises
    ------
    UsageError
        No such file, or one of another format.
    Malformed
        Contents that do not match their hash.
    """
    try:
        with safe_open(str(path), framework="np") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UsageError("query.tables.match", f"{path} cannot be read: {error}") from error
    if header.get("format") != FORMAT:
        raise UsageError("query.tables.match", f"{path} is no {FORMAT} file")
    try:
        about, frame, made = (json.loads(header[name]) for name in ("rotation", "frame", "made"))
        if header["sha256"] != _digest(tensors, about, frame, header["model"]):
            raise Malformed("query.tables.match", f"{path} does not match its own hash")
        layers = {}
        for index, rotation in about.items():
            known = Skeleton(tensors[f"layers.{index}.bodies"], tensors[f"layers.{index}.analysis"])
            rope = Rope(tuple(rotation["frequencies"]), rotation["interleaved"])
            layers[int(index)] = LayerTables(known, rope, frame)
    except (KeyError, TypeError, AttributeError, JSONDecodeError) as error:
        raise Malformed(
            "query.tables.match", f"{path} lacks what tables have: {error!r}"
        ) from error
    return KeyTables(layers, frame, header["model"], made)


def fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 of names, shapes and some numbers of all parameters, and of how positions turn.

    Numbers are rounded to bfloat16 first, so that a model has one fingerprint in float32 and
    bfloat16; buffers of rotations enter as they are.
    """
    digest = hashlib.sha256()
    with torch.no_grad():
        for name, value in model.named_parameters():
            flat = value.detach().reshape(-1)
            some = flat[:: max(1, len(flat) // SAMPLE)][:SAMPLE].to("cpu", torch.bfloat16)
            digest.update(f"{name}{tuple(value.shape)}".encode())
            digest.update(some.view(torch.int16).numpy().tobytes())
        for name, value in model.named_buffers():
            if name.endswith("inv_freq"):
                digest.update(name.encode() + value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def _in_order(data: bytes) -> bytes:
    """A safetensors file with its metadata sorted: the library writes them in any order."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # numbers behind it stay aligned
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def _digest(tensors: Mapping[str, Any], about: Any, frame: int, model: str) -> str:
    digest = hashlib.sha256(json.dumps([FORMAT, about, frame, model], sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode() + np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()
